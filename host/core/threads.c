#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

int tw_threads_available(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void *wait_for_all(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* How many of n threads are there at one time, and why no more. Signals are the program's. */
static int start_and_end(pthread_t *started, int n, int *error) {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    sigset_t all, before;
    int there = 0;
    *error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&gate);
    while (there < n && !(*error = pthread_create(&started[there], NULL, wait_for_all, &gate)))
        there++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < there; i++) pthread_join(started[i], NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_destroy(&gate);
    return there;
}

tw_status tw_threads_try(tw_context *ctx, int threads) {
    static _Thread_local int seen = 1;
    int error;
    if (threads <= seen) return TW_OK;
    pthread_t *started = tw_allocate(ctx, (size_t)threads, sizeof *started);
    if (!started) return TW_ERROR_MEMORY;
    const int there = start_and_end(started, threads - 1, &error);
    tw_free(ctx, started);
    if (there < threads - 1)
        return tw_fail(ctx, TW_ERROR_MEMORY,
                       "threads: %d are wanted, and %d can be had: %s; expected fewer", threads,
                       there + 1, strerror(error));
    seen = threads;
    return TW_OK;
}
