/* The few calls of the CUDA driver that tuning needs. The driver is there wherever a GPU can be
 * used; no header of it is needed. */
#ifndef TW_BACKEND_CUDA_VENDOR_DRIVER_H
#define TW_BACKEND_CUDA_VENDOR_DRIVER_H

#include "backend/cuda/vendor/internal.h"

typedef struct CUevent_st *tw_event;
typedef unsigned long long tw_device_address;

/* Each returns 0, or the driver's number of an error. */
typedef struct tw_driver_api {
    int (*event_create)(tw_event *event, unsigned flags);
    int (*event_destroy)(tw_event event);
    int (*event_record)(tw_event event, twk_stream stream);
    int (*event_synchronize)(tw_event event);
    int (*event_elapsed)(float *milliseconds, tw_event from, tw_event to);
    int (*allocate)(tw_device_address *address, size_t bytes);
    int (*release)(tw_device_address address);
    int (*fill)(tw_device_address address, unsigned char byte, size_t bytes, twk_stream stream);
    int (*to_host)(void *to, tw_device_address from, size_t bytes);
    int (*synchronize)(twk_stream stream);
    int (*is_capturing)(twk_stream stream, int *status);
} tw_driver_api;

struct tw_driver {
    void *library; /* NULL: it could not be opened */
    char reason[TW_VENDOR_TEXT];
    tw_driver_api api;
};

twk_status tw_driver_open(tw_vendor *v);

#endif
