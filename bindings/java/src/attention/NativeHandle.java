// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import java.lang.ref.Cleaner;
import java.util.function.Consumer;

/** A native object that is freed by close, or else once nobody refers to it. */
abstract class NativeHandle implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();

    private final Pointer handle;
    private final Cleaner.Cleanable cleanable;
    private volatile boolean isClosed;

    NativeHandle(Pointer handle, Consumer<Pointer> destroy) {
        this.handle = handle;
        this.cleanable = CLEANER.register(this, () -> destroy.accept(handle));
    }

    final Pointer handle() {
        if (isClosed) {
            throw new IllegalStateException(getClass().getSimpleName() + " is closed");
        }
        return handle;
    }

    /** No call may be under way. */
    @Override
    public final void close() {
        isClosed = true;
        cleanable.clean();
    }
}
