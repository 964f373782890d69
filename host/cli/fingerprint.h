/* What the data of a run is known by. */
#ifndef TW_CLI_FINGERPRINT_H
#define TW_CLI_FINGERPRINT_H

#include <jansson.h>
#include <stdbool.h>

/* Whether a source is the name of a set that is made on the spot, and no path. */
bool cli_source_is_made(const char *source);

/* {"files", "bytes", "hash"} of a file or a folder, null for what is neither or made on the
 * spot. Of a file of up to 64 MiB the hash covers every byte, of a larger one 64 pieces of a MiB
 * spread over it; of a folder the names and sizes, but for hidden ones. */
json_t *cli_fingerprint(const char *source);

#endif
