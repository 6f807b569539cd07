// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Library;
import java.lang.ref.Reference;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map;
import java.util.concurrent.locks.Lock;

/**
 * The way of every call into the library. Until it has returned, what it is given stays reachable,
 * though the caller may have no further use for it, and its context and layer stay open; a function
 * that changes a layer has it alone.
 */
final class NativeCall implements InvocationHandler {
    private static final Object[] NONE = {};

    private final Library.Handler library;

    private NativeCall(Library.Handler library) {
        this.library = library;
    }

    static Abi open(String name) {
        final NativeCall calls = new NativeCall(new Library.Handler(name, Abi.class, Map.of()));
        return (Abi) Proxy.newProxyInstance(Abi.class.getClassLoader(), new Class<?>[] {Abi.class}, calls);
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] given) throws Throwable {
        final Object[] arguments = given == null ? NONE : given;
        final Deque<Lock> held = new ArrayDeque<>();
        try {
            lockHandles(arguments, method.isAnnotationPresent(Abi.ChangesLayer.class), held);
            return library.invoke(proxy, method, asNative(arguments));
        } finally {
            held.forEach(Lock::unlock);
            Reference.reachabilityFence(arguments);
        }
    }

    /** In the order of the arguments, a context before a layer: so no two calls wait for each other. */
    private static void lockHandles(Object[] arguments, boolean changesLayer, Deque<Lock> held) {
        for (final Object argument : arguments) {
            if (argument instanceof NativeHandle handle) {
                final Lock lock = handle.lock(changesLayer && handle instanceof Multihead);
                lock.lock();
                held.push(lock);
            }
        }
    }

    private static Object[] asNative(Object[] arguments) {
        final Object[] natives = arguments.clone();
        for (int i = 0; i < natives.length; i++) {
            if (natives[i] instanceof Argument argument) {
                natives[i] = argument.pointer();
            }
        }
        return natives;
    }
}
