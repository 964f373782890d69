/* Plans by shape. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/internal.h"

void tw_vendor_key_add(tw_vendor_key *key, int n, const int64_t *values) {
    memcpy(key->v + key->n, values, (size_t)n * sizeof *values);
    key->n += n;
}

static unsigned bucket_of(const tw_vendor_key *key) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < key->n; i++) hash = (hash ^ (uint64_t)key->v[i]) * 0x100000001b3u;
    return (unsigned)(hash >> 32) % TW_VENDOR_BUCKETS;
}

tw_vendor_entry *tw_vendor_find(const tw_vendor *v, const tw_vendor_key *key) {
    tw_vendor_entry *e = v->cache[bucket_of(key)];
    while (e &&
           (e->key.n != key->n || memcmp(e->key.v, key->v, (size_t)key->n * sizeof key->v[0]) != 0))
        e = e->next;
    return e;
}

tw_vendor_entry *tw_vendor_keep(tw_vendor *v, const tw_vendor_key *key,
                                const tw_vendor_family *family, tw_vendor_plan *plan) {
    tw_vendor_entry *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->key = *key;
    e->family = family;
    e->plan = plan;
    if (!plan && !(e->reason = strdup(tw_vendor_text()))) {
        free(e);
        return NULL;
    }
    tw_vendor_entry **head = &v->cache[bucket_of(key)];
    e->next = *head;
    *head = e;
    return e;
}

void tw_vendor_forget_all(tw_vendor *v) {
    for (int i = 0; i < TW_VENDOR_BUCKETS; i++) {
        while (v->cache[i]) {
            tw_vendor_entry *e = v->cache[i];
            v->cache[i] = e->next;
            if (e->plan) e->family->free(v, e->plan);
            free(e->reason);
            free(e);
        }
    }
}
