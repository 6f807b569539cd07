// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import java.lang.ref.Cleaner;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Consumer;

/** A native object that is freed by close, or else once nobody refers to it. */
abstract class NativeHandle extends Argument implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();

    private final Pointer handle;
    private final Cleaner.Cleanable cleanable;
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private boolean isClosed;

    NativeHandle(Pointer handle, Consumer<Pointer> destroy) {
        this.handle = handle;
        this.cleanable = CLEANER.register(this, () -> destroy.accept(handle));
    }

    /** Alone for what changes or frees the object, else shared with other calls. */
    final Lock lock(boolean isAlone) {
        return isAlone ? lock.writeLock() : lock.readLock();
    }

    /** Under the lock. */
    @Override
    final Pointer pointer() {
        if (isClosed) {
            throw new IllegalStateException(getClass().getSimpleName() + " is closed");
        }
        return handle;
    }

    /** Frees the object after the calls that are under way; later ones are refused. */
    @Override
    public final void close() {
        lock.writeLock().lock();
        try {
            isClosed = true;
            cleanable.clean();
        } finally {
            lock.writeLock().unlock();
        }
    }
}
