// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Native;
import com.sun.jna.Pointer;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;

/** What a view of a buffer has to be: inside it, and read by the library as Java reads it. */
final class DirectBuffer {
    private DirectBuffer() {}

    /** Of a buffer's elements, which need not be those of the view. */
    private record Elements(int bytes, ByteOrder order) {}

    /** The address of a view's first element. */
    static Pointer addressOf(Tensor.Dtype dtype, Buffer buffer, long offset, long[] shape, long[] strides) {
        if (!buffer.isDirect()) {
            throw new IllegalArgumentException("buffer: expected a direct one; of(...) copies arrays");
        }
        if (shape.length != strides.length) {
            throw new IllegalArgumentException("strides: expected as many as the shape has axes");
        }
        final Elements elements = elementsOf(buffer);
        if (elements.bytes > 1 && elements.order != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException(
                    "buffer: expected one in the machine's byte order, which order(ByteOrder.nativeOrder()) sets"
                            + " before asFloatBuffer() and the like");
        }
        if (!isInside((long) buffer.capacity() * elements.bytes, dtype, offset, shape, strides)) {
            throw new IndexOutOfBoundsException("buffer: the view reaches beyond it");
        }
        return Native.getDirectBufferPointer(buffer).share(offset * dtype.bytes);
    }

    /** The order of a ByteBuffer says how it is read next, not how it was filled. */
    private static Elements elementsOf(Buffer buffer) {
        if (buffer instanceof ByteBuffer) {
            return new Elements(Byte.BYTES, ByteOrder.nativeOrder());
        }
        if (buffer instanceof ShortBuffer shorts) {
            return new Elements(Short.BYTES, shorts.order());
        }
        if (buffer instanceof CharBuffer chars) {
            return new Elements(Character.BYTES, chars.order());
        }
        if (buffer instanceof IntBuffer ints) {
            return new Elements(Integer.BYTES, ints.order());
        }
        if (buffer instanceof FloatBuffer floats) {
            return new Elements(Float.BYTES, floats.order());
        }
        if (buffer instanceof LongBuffer longs) {
            return new Elements(Long.BYTES, longs.order());
        }
        return new Elements(Double.BYTES, ((DoubleBuffer) buffer).order());
    }

    /** Whether the elements that a view reaches lie in the first `bytes`; an empty one reaches none. */
    private static boolean isInside(long bytes, Tensor.Dtype dtype, long offset, long[] shape, long[] strides) {
        long lowest = offset;
        long highest = offset;
        try {
            for (int axis = 0; axis < shape.length; axis++) {
                if (shape[axis] <= 0) {
                    return offset >= 0 && Math.multiplyExact(offset, dtype.bytes) <= bytes;
                }
                final long reach = Math.multiplyExact(shape[axis] - 1, strides[axis]);
                lowest = Math.addExact(lowest, Math.min(0, reach));
                highest = Math.addExact(highest, Math.max(0, reach));
            }
            return lowest >= 0 && Math.multiplyExact(Math.addExact(highest, 1), dtype.bytes) <= bytes;
        } catch (ArithmeticException overflow) {
            return false;
        }
    }
}
