/* SPDX-License-Identifier: BSD-3-Clause
 *
 * context.hpp: the settings calls run under. Where a function takes a context, nullptr is the
 * process's default one.
 */
#ifndef ATTENTION_CONTEXT_HPP
#define ATTENTION_CONTEXT_HPP

#include <attention/context.h>
#include <attention/selftest.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <memory_resource>
#include <string>

#include "tensor.hpp"

namespace attention {

/* Threads of the caller's, on which the library computes. */
class thread_pool {
  public:
    virtual ~thread_pool() = default;

    /* Calls task with every index in [0, count), each once, in any order and on any threads, and
     * returns true after all of them have returned; or calls none and returns false. May be called
     * from several threads at once. */
    virtual bool run(std::int64_t count,
                     const std::function<void(std::int64_t)> &task) noexcept = 0;
};

struct context_config {
    std::int32_t num_threads = 0; /* 0: the CPUs of this process */
    std::int32_t engine = ATTN_ENGINE_AUTO;
    std::int32_t gemm = ATTN_GEMM_AUTO;
    std::string kernels; /* empty: the best */

    /* Where query, key and value are bfloat16 and the kernels multiply pairs of them, the weights
     * of many rows are rounded to it; true keeps them float32. */
    bool float32_weights = false;

    /* Instead of threads of the library's; outlives the context. `parallel_for_width` of its tasks
     * are under way at a time; 0: as many as CPUs. */
    thread_pool *pool = nullptr;
    std::int32_t parallel_for_width = 0;

    /* Used from several threads at once; outlives the context and every layer made with it.
     * nullptr: the C library's memory. */
    std::pmr::memory_resource *memory = nullptr;
};

namespace detail {

inline std::int32_t parallel_for(void *pool, std::int64_t count, attn_task_fn task,
                                 void *data) noexcept {
    const auto run_task = [task, data](std::int64_t index) { task(data, index); };
    return static_cast<thread_pool *>(pool)->run(count, run_task) ? 0 : 1;
}

/* No exception may pass through the library. */
inline void *allocate(void *memory, std::size_t bytes, std::size_t alignment) noexcept {
    try {
        return static_cast<std::pmr::memory_resource *>(memory)->allocate(bytes, alignment);
    } catch (...) {
        return nullptr;
    }
}

inline void deallocate(void *memory, void *block, std::size_t bytes,
                       std::size_t alignment) noexcept {
    static_cast<std::pmr::memory_resource *>(memory)->deallocate(block, bytes, alignment);
}

} // namespace detail

/* Any number of threads may use one at once. */
class context {
  public:
    explicit context(const context_config &config = {}) {
        attn_context_config settings{};
        settings.struct_size = sizeof settings;
        settings.num_threads = config.num_threads;
        settings.parallel_for_width = config.parallel_for_width;
        settings.engine = config.engine;
        settings.gemm = config.gemm;
        settings.kernels = config.kernels.empty() ? nullptr : config.kernels.c_str();
        settings.float32_weights = config.float32_weights;
        if (config.pool != nullptr) {
            settings.parallel_for = detail::parallel_for;
            settings.parallel_for_state = config.pool;
        }
        if (config.memory != nullptr) {
            settings.allocate = detail::allocate;
            settings.deallocate = detail::deallocate;
            settings.allocator_state = config.memory;
        }
        attn_context *made = nullptr;
        check(attn_context_create(&settings, &made));
        handle_.reset(made);
    }

    attn_context *c_handle() const noexcept {
        return handle_.get();
    }

  private:
    struct destroy {
        void operator()(attn_context *handle) const noexcept {
            attn_context_destroy(handle);
        }
    };
    std::unique_ptr<attn_context, destroy> handle_;
};

namespace detail {

inline attn_context *handle_of(const context *chosen) {
    return chosen == nullptr ? nullptr : chosen->c_handle();
}

} // namespace detail

/* Starts the threads now, which the first large call would do. */
inline void start(const context *chosen = nullptr) {
    check(attn_context_start(detail::handle_of(chosen)));
}

/* What it runs with. */
inline attn_context_info describe(const context *chosen = nullptr) {
    attn_context_info info{};
    info.struct_size = sizeof info;
    check(attn_context_describe(detail::handle_of(chosen), &info));
    return info;
}

/* A check of attn_selftest, its status, and its detail, "" for ATTN_OK. */
using selftest_visit =
    std::function<void(const char *name, attn_status status, const char *detail)>;

/* Whether this machine computes what it should; throws what attn_selftest returns. */
inline void selftest(const context *chosen = nullptr, const selftest_visit &visit = {}) {
    struct visitor {
        const selftest_visit &visit;
        std::exception_ptr thrown;

        static void tell(void *state, const char *name, attn_status status, const char *detail) {
            visitor &self = *static_cast<visitor *>(state);
            if (self.thrown) {
                return;
            }
            try {
                self.visit(name, status, detail);
            } catch (...) {
                self.thrown = std::current_exception();
            }
        }
    };
    visitor told{visit, nullptr};
    attn_selftest_params params{};
    params.struct_size = sizeof params;
    params.visit = visit ? visitor::tell : nullptr;
    params.visit_state = &told;
    const attn_status status = attn_selftest(detail::handle_of(chosen), &params);
    if (told.thrown) {
        std::rethrow_exception(told.thrown);
    }
    check(status);
}

} // namespace attention

#endif
