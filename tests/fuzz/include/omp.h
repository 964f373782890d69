/* Fuzzed code runs on one thread: OpenMP's pragmas are ignored, and these are the calls beside. */
#ifndef TW_FUZZ_OMP_H
#define TW_FUZZ_OMP_H

static inline int omp_get_max_threads(void) {
    return 1;
}
static inline int omp_get_num_threads(void) {
    return 1;
}
static inline int omp_get_thread_num(void) {
    return 0;
}
static inline void omp_set_num_threads(int threads) {
    (void)threads;
}

#endif
