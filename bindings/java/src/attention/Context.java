// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;

/** Threads and kernels of the calls it is given to. Any number of threads may use one at once. */
public final class Context extends NativeHandle {
    /** The CPUs of this process, the best kernels. */
    public Context() {
        this(0, null);
    }

    /**
     * @param numThreads 1 to 1024; 0: the CPUs of this process
     * @param kernels a name, or null for the best
     */
    public Context(int numThreads, String kernels) {
        super(create(numThreads, kernels), Abi.LIBRARY::attn_context_destroy);
    }

    private static Pointer create(int numThreads, String kernels) {
        final Abi.ContextParams params = new Abi.ContextParams();
        params.num_threads = numThreads;
        params.kernels = kernels;
        final PointerByReference made = new PointerByReference();
        Abi.check(Abi.LIBRARY.attn_context_create(params, made));
        return made.getValue();
    }

    static Pointer handleOf(Context context) {
        return context == null ? null : context.handle();
    }
}
