// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Memory;
import com.sun.jna.Pointer;
import java.lang.ref.Reference;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;

/**
 * A view of native memory: an address, a shape, strides in elements. Made of a direct buffer, which
 * it keeps, or with memory of its own, which is freed with it.
 */
public final class Tensor extends Argument {
    /** Element types. */
    public enum Dtype {
        FLOAT32(1, 4),
        FLOAT64(2, 8),
        BOOL(3, 1),
        INT64(4, 8),
        /** Of shorts: {@link HalfFloats}. */
        BFLOAT16(5, 2),
        /** Likewise. */
        FLOAT16(6, 2),
        INT32(7, 4),
        /** Keys and values of {@link KvPlaces} with scales. */
        INT8(8, 1),
        /** Likewise, of bytes without sign: b & 0xff. */
        UINT8(9, 1);

        final int number;
        final int bytes;

        Dtype(int number, int bytes) {
            this.number = number;
            this.bytes = bytes;
        }

        static Dtype of(int number) {
            return Arrays.stream(values()).filter(dtype -> dtype.number == number).findFirst().orElseThrow();
        }
    }

    private final Abi.TensorView view = new Abi.TensorView();
    private final Dtype dtype;
    /** What the memory is freed with. */
    private final Object owner;
    private final boolean isWritable;

    private Tensor(
            Dtype dtype, Object owner, boolean isWritable, Pointer data, long[] shape, long[] strides) {
        this.dtype = dtype;
        this.owner = owner;
        this.isWritable = isWritable;
        Abi.check(
                Abi.LIBRARY.attn_tensor_init_strided(
                        view, data, dtype.number, shape.length, shape, strides));
    }

    /** New memory, all zero. */
    public static Tensor zeros(Dtype dtype, long... shape) {
        final long count = Arrays.stream(shape).reduce(1, Math::multiplyExact);
        final Memory memory = new Memory(Math.max(1, Math.multiplyExact(count, dtype.bytes)));
        memory.clear();
        return new Tensor(dtype, memory, true, memory, shape, contiguous(shape));
    }

    /** A copy of an array, last axis fastest. */
    public static Tensor of(float[] values, long... shape) {
        final Tensor made = sized(Dtype.FLOAT32, values.length, shape);
        made.memory().write(0, values, 0, values.length);
        return made;
    }

    /** A copy of an array, last axis fastest. */
    public static Tensor of(double[] values, long... shape) {
        final Tensor made = sized(Dtype.FLOAT64, values.length, shape);
        made.memory().write(0, values, 0, values.length);
        return made;
    }

    /** A copy of an array, last axis fastest. */
    public static Tensor of(long[] values, long... shape) {
        final Tensor made = sized(Dtype.INT64, values.length, shape);
        made.memory().write(0, values, 0, values.length);
        return made;
    }

    /** A copy of an array, last axis fastest. */
    public static Tensor of(int[] values, long... shape) {
        final Tensor made = sized(Dtype.INT32, values.length, shape);
        made.memory().write(0, values, 0, values.length);
        return made;
    }

    /** A copy of an array, last axis fastest. */
    public static Tensor of(boolean[] values, long... shape) {
        final Tensor made = sized(Dtype.BOOL, values.length, shape);
        final byte[] flags = new byte[values.length];
        for (int i = 0; i < values.length; i++) {
            flags[i] = (byte) (values[i] ? 1 : 0);
        }
        made.memory().write(0, flags, 0, flags.length);
        return made;
    }

    /** A copy of an array, last axis fastest, rounded to BFLOAT16 or FLOAT16. */
    public static Tensor rounded(Dtype dtype, float[] values, long... shape) {
        final short[] bits = new short[values.length];
        for (int i = 0; i < bits.length; i++) {
            bits[i] =
                    dtype == Dtype.BFLOAT16
                            ? HalfFloats.floatToBfloat16(values[i])
                            : HalfFloats.floatToFloat16(values[i]);
        }
        return ofBits(dtype, bits, shape);
    }

    /** A copy of an array of the bits of BFLOAT16 or FLOAT16 numbers, last axis fastest. */
    public static Tensor ofBits(Dtype dtype, short[] bits, long... shape) {
        if (dtype != Dtype.BFLOAT16 && dtype != Dtype.FLOAT16) {
            throw new IllegalArgumentException("dtype: expected BFLOAT16 or FLOAT16, got " + dtype);
        }
        final Tensor made = sized(dtype, bits.length, shape);
        made.memory().write(0, bits, 0, bits.length);
        return made;
    }

    /** A view of a direct buffer from its beginning, without a copy; last axis fastest. */
    public static Tensor view(Dtype dtype, Buffer buffer, long... shape) {
        return strided(dtype, buffer, 0, shape, contiguous(shape));
    }

    /**
     * A view of any layout; offset and strides count elements of the dtype. One of a read-only buffer
     * is an input.
     */
    public static Tensor strided(
            Dtype dtype, Buffer buffer, long offset, long[] shape, long[] strides) {
        final Pointer start = DirectBuffer.addressOf(dtype, buffer, offset, shape, strides);
        return new Tensor(dtype, buffer, !buffer.isReadOnly(), start, shape, strides);
    }

    private static Tensor sized(Dtype dtype, long length, long[] shape) {
        final Tensor made = zeros(dtype, shape);
        if (made.count() != length) {
            throw new IllegalArgumentException(
                    "values: expected " + made.count() + " for " + Arrays.toString(shape) + ", got " + length);
        }
        return made;
    }

    private static long[] contiguous(long[] shape) {
        final long[] strides = new long[shape.length];
        long stride = 1;
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            strides[axis] = stride;
            stride *= Math.max(1, shape[axis]);
        }
        return strides;
    }

    private Pointer memory() {
        return view.data;
    }

    public Dtype dtype() {
        return dtype;
    }

    public long[] shape() {
        return Arrays.copyOf(view.shape, view.rank);
    }

    /** Elements. */
    public long count() {
        return Arrays.stream(shape()).reduce(1, Math::multiplyExact);
    }

    /** The elements in the order of the last axis fastest, whatever the strides; true is 1. */
    public double[] toDoubles() {
        final double[] values = new double[Math.toIntExact(count())];
        for (int i = 0; i < values.length; i++) {
            values[i] = elementAt(placeOf(i) * dtype.bytes);
        }
        Reference.reachabilityFence(this);
        return values;
    }

    private double elementAt(long position) {
        return switch (dtype) {
            case FLOAT32 -> memory().getFloat(position);
            case FLOAT64 -> memory().getDouble(position);
            case BFLOAT16 -> HalfFloats.bfloat16ToFloat(memory().getShort(position));
            case FLOAT16 -> HalfFloats.float16ToFloat(memory().getShort(position));
            case BOOL -> memory().getByte(position);
            case INT64 -> memory().getLong(position);
            case INT32 -> memory().getInt(position);
            case INT8 -> memory().getByte(position);
            case UINT8 -> Byte.toUnsignedInt(memory().getByte(position));
        };
    }

    private long placeOf(long flat) {
        long at = 0;
        for (int axis = view.rank - 1; axis >= 0; axis--) {
            at += flat % view.shape[axis] * view.strides[axis];
            flat /= view.shape[axis];
        }
        return at;
    }

    /** Memory for a direct buffer of floats that a tensor may view. */
    public static java.nio.FloatBuffer directFloats(int count) {
        return ByteBuffer.allocateDirect(count * Float.BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    @Override
    Pointer pointer() {
        return view.getPointer();
    }

    /** The views of tensors as a C array. One that is null is of no dtype: the library names it. */
    static final class Array extends Argument {
        private final List<Tensor> tensors;
        private final Memory views;

        Array(List<Tensor> tensors) {
            this.tensors = tensors;
            final int bytes = new Abi.TensorView().size();
            views = new Memory(Math.max(1, (long) bytes * tensors.size()));
            views.clear();
            for (int i = 0; i < tensors.size(); i++) {
                if (tensors.get(i) != null) {
                    views.write((long) bytes * i, tensors.get(i).pointer().getByteArray(0, bytes), 0, bytes);
                }
            }
        }

        @Override
        Pointer pointer() {
            return views;
        }

        @Override
        public String toString() {
            return tensors.toString();
        }
    }

    /** The rows of matrices, -1 where there is no such axis. */
    long rows() {
        return view.rank < 2 ? -1 : view.shape[view.rank - 2];
    }

    static Pointer pointerOf(Tensor tensor) {
        return tensor == null ? null : tensor.pointer();
    }

    /** The tensor, which a call is to fill as the argument of this name; null is the call's to judge. */
    static Tensor written(String name, Tensor output) {
        if (output != null && !output.isWritable) {
            throw new AttentionException(
                    Abi.ERROR_VALUE, name + ": expected memory that may be written, got a read-only buffer");
        }
        return output;
    }

    @Override
    public String toString() {
        return "Tensor(" + dtype + ", " + Arrays.toString(shape()) + ", of " + owner.getClass().getSimpleName() + ")";
    }
}
