#include "measure.h"

#include <signal.h>
#include <unistd.h>

#include "copy.h"
#include "library.h"
#include "machine.h"
#include "report.h"

static bool own_run(const void *object, int set, cudaStream_t stream) {
    return bench_job_run(object, set, stream) == TWK_OK;
}

static bool peer_run(const void *object, int set, cudaStream_t stream) {
    const bench_job *job = object;
    return job->family->peer(&job->call[set], stream);
}

static bool library_run(const void *object, int set, cudaStream_t stream) {
    return bench_peer_run(object, set, stream);
}

static bench_protocol protocol_of(const bench_row *row, const bench_options *o) {
    if (o->small) return (bench_protocol){true, 2, 2};
    return (bench_protocol){true, bench_calls_in_graph(bench_predicted_seconds(row)),
                            o->quick ? 15 : 60};
}

/* In turn with the kernel, once it is right. A library that cannot is not this row's failure. */
static void time_library(const bench_job *job, bench_peer *peer, const bench_options *o,
                         bench_timer *timer, bench_result *out) {
    const bench_work own = {own_run, job, job->sets}, library = {library_run, peer, peer->job.sets};
    bool ran = bench_peer_run(peer, 0, timer->stream);
    ran = cudaStreamSynchronize(timer->stream) == cudaSuccess && ran;
    if (ran) bench_peer_check(peer, &out->peer_check);
    const bool right = ran && bench_is_right(&out->peer_check);
    out->has_peer = right && bench_compare_times(timer, library, own, protocol_of(&job->row, o),
                                                 &out->peer_cold, &out->beside_peer);
    if (out->has_peer)
        snprintf(out->peer, sizeof out->peer, "%s", peer->text);
    else if (ran && !right)
        snprintf(out->peer, sizeof out->peer, "none: wrong, %.3g of the bound: %.160s",
                 out->peer_check.worst, peer->text);
    else
        snprintf(out->peer, sizeof out->peer, "none: %.120s: %.120s", peer->text, tw_vendor_text());
}

static void find_library(const bench_job *job, const bench_libraries *libraries,
                         const bench_options *o, bench_timer *timer, bench_result *out) {
    bench_peer peer;
    if (!bench_peer_make(libraries, &job->row, job->sets, timer->stream, &peer)) {
        snprintf(out->peer, sizeof out->peer, "%s", peer.text);
        return;
    }
    time_library(job, &peer, o, timer, out);
    bench_peer_free(&peer);
}

static bool time_job(const bench_job *job, const bench_device_copy *copy, const bench_options *o,
                     bench_timer *timer, bench_result *out) {
    const bench_work own = {own_run, job, job->sets}, peer = {peer_run, job, job->sets};
    const bench_work yardstick = bench_device_copy_work(copy);
    bench_protocol p = protocol_of(&job->row, o);
    if (!bench_compare_times(timer, own, yardstick, p, &out->cold, &out->copy_cold)) return false;
    out->has_peer = job->family->peer != NULL;
    snprintf(out->peer, sizeof out->peer, "%s", job->family->peer_name);
    if (job->family->peer &&
        !bench_compare_times(timer, peer, own, p, &out->peer_cold, &out->beside_peer))
        return false;
    p.cold = false;
    return bench_compare_times(timer, own, yardstick, p, &out->hot, &out->copy_hot);
}

static bool measure_row(const bench_row *row, const bench_libraries *libraries,
                        const bench_options *o, bench_timer *timer, bench_result *out) {
    const int max_sets = o->small ? 2 : 128;
    bench_job job;
    bench_device_copy copy;
    if (!bench_job_make(row, max_sets, &job)) return false;
    bool good = bench_device_copy_make(bench_bytes(row), max_sets, &copy);
    if (good) {
        good = bench_job_run(&job, 0, timer->stream) == TWK_OK &&
               cudaStreamSynchronize(timer->stream) == cudaSuccess;
        twk_last_launch(&out->info);
        if (good) {
            bench_job_check(&job, &out->check);
            good = !out->check.failed && time_job(&job, &copy, o, timer, out);
            if (good && !o->alone && bench_has_library(row->kind))
                find_library(&job, libraries, o, timer, out);
        }
        bench_device_copy_free(&copy);
    }
    bench_job_free(&job);
    return good;
}

/* A kernel that waits for ever lets nobody return. */
static char late[80];
static size_t late_length;
static void give_up(int signal_number) {
    (void)signal_number;
    if (write(STDOUT_FILENO, late, late_length) < 0) _exit(1);
    _exit(BENCH_STOPPED);
}

static void watch_row(size_t index, unsigned seconds) {
    if (!seconds) return;
    late_length =
        (size_t)snprintf(late, sizeof late,
                         "kernel_bench: row %zu does not end, error after %u s\n", index, seconds);
    signal(SIGALRM, give_up);
    alarm(seconds);
}

static int measure_rows(const bench_row *rows, size_t count, const bench_options *o,
                        bench_timer *timer, FILE *json) {
    bench_standing standings[BENCH_STANDINGS] = {0};
    bench_libraries libraries;
    int status = 0;
    if (!bench_libraries_open(&o->files, o->compile, &libraries)) {
        fprintf(stderr, "kernel_bench: out of memory\n");
        return 1;
    }
    for (size_t i = o->from; i < count && status != BENCH_STOPPED; i++) {
        const bench_row row = o->small ? bench_small_twin(&rows[i]) : rows[i];
        bench_result result = {0};
        watch_row(i, o->row_seconds);
        const bool measured = measure_row(&row, &libraries, o, timer, &result);
        alarm(0);
        if (measured) {
            bench_print_result(&row, &result, json);
            bench_count_row(&row, &result, standings);
            if (!bench_is_right(&result.check)) status = 1;
            continue;
        }
        char shape[BENCH_SHAPE_TEXT];
        bench_shape_text(&row, shape);
        status = 1;
        printf("%-28s %-18s %s  failed: %s %s\n", row.name, shape, bench_format_name(row.format),
               twk_error_text(), cudaGetErrorString(cudaGetLastError()));
        fflush(stdout);
        if (cudaDeviceSynchronize() == cudaSuccess) continue;
        printf("kernel_bench: row %zu lost the device\n", i);
        status = BENCH_STOPPED;
    }
    bench_libraries_close(&libraries);
    bench_print_standings(standings);
    return status;
}

int bench_measure(const bench_row *rows, size_t count, const bench_options *options) {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices == 0) {
        fprintf(stderr, "kernel_bench: no CUDA device (%s): the plan only\n",
                cudaGetErrorString(error));
        return 2;
    }
    FILE *json = options->json ? fopen(options->json, options->from ? "a" : "w") : NULL;
    if (options->json && !json) {
        fprintf(stderr, "kernel_bench: --json: cannot write %s\n", options->json);
        return 1;
    }
    bench_timer timer;
    int status = 1;
    if (bench_timer_create(&timer)) {
        if (!options->from) bench_print_machine(&timer, options->small, json);
        status = measure_rows(rows, count, options, &timer, json);
    } else
        fprintf(stderr, "kernel_bench: no stream or event on this device\n");
    bench_timer_destroy(&timer);
    if (json && fclose(json) != 0) {
        fprintf(stderr, "kernel_bench: --json: cannot write %s\n", options->json);
        return 1;
    }
    return status;
}
