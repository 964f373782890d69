/* Symbol visibility, linkage and the version of the headers. */
#ifndef TWEEDIE_EXPORT_H
#define TWEEDIE_EXPORT_H

#define TW_VERSION_MAJOR 0
#define TW_VERSION_MINOR 1
#define TW_VERSION_PATCH 0
#define TW_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define TW_API __attribute__((visibility("default")))
#define TW_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define TW_API
#define TW_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
#define TW_BEGIN_DECLS extern "C" {
#define TW_END_DECLS }
#else
#define TW_BEGIN_DECLS
#define TW_END_DECLS
#endif

TW_BEGIN_DECLS

/* The version of the library that is linked, "major.minor.patch". Never fails. */
TW_API const char *tw_version(void);

TW_END_DECLS

#endif
