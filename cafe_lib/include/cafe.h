/*
 * cafe.h - what a developer writes: annotations of secret functions, and the few calls a program may make.
 *
 *   CAFE_SECRET CAFE_ON_ERROR(-1)
 *   int check(const char *uri CAFE_IN(length), size_t length, uint32_t *reason CAFE_OUT(1));
 *
 * An annotation stands before or after the name it belongs to. Counts are elements (bytes for void *) and may
 * use the function's scalar parameters, constants and sizeof. Pointers in a struct that a parameter points to
 * are annotated where they are declared; their counts use the struct's integers. A compiler sees nothing of
 * all this; only `cafe build` reads it.
 */
#ifndef CAFE_H
#define CAFE_H

#include <stddef.h>

#ifdef CAFE_READ_INTERFACE
#define CAFE_NOTE(text) __attribute__((annotate(text)))
#define CAFE_TEXT_(...) #__VA_ARGS__
#define CAFE_TEXT(...) CAFE_TEXT_(__VA_ARGS__)
#else
#define CAFE_NOTE(text)
#endif

#define CAFE_SECRET CAFE_NOTE("cafe:secret")                        /* this function runs in the enclave */
#define CAFE_IN(...) CAFE_NOTE("cafe:in:" CAFE_TEXT(__VA_ARGS__))   /* n elements the secret code reads */
#define CAFE_OUT(...) CAFE_NOTE("cafe:out:" CAFE_TEXT(__VA_ARGS__)) /* n elements it writes; zero before */
#define CAFE_INOUT(...) CAFE_NOTE("cafe:inout:" CAFE_TEXT(__VA_ARGS__)) /* n elements it reads and writes */
#define CAFE_STR(...) CAFE_NOTE("cafe:str:" CAFE_TEXT(__VA_ARGS__))     /* string, max bytes with its NUL */
#define CAFE_OPAQUE CAFE_NOTE("cafe:opaque")     /* the pointer's value only: a handle of the caller's */
#define CAFE_CALLBACK CAFE_NOTE("cafe:callback") /* a public function that secret code may call */
#define CAFE_SERIAL CAFE_NOTE("cafe:serial")     /* one call of this secret function at a time */
#define CAFE_ON_ERROR(...) CAFE_NOTE("cafe:error:" #__VA_ARGS__) /* returned when a call fails; see below */

#ifdef __cplusplus
extern "C" {
#endif

/* What this thread's most recent call of a secret function ended with: 0, or enum cafe_status in cafe_abi.h.
 * A function without CAFE_ON_ERROR does not return from a failure: the process is ended with a message. */
int cafe_last_error(void);

/* The same in words, what to do about it included; "" after success. Valid until this thread's next call. */
const char *cafe_error_message(void);

/* The address range where the secret code of `library` (its name in cafe.toml; NULL: the first one) would
 * lie. Nothing can be read there; only the start of a secret function can be called. NULL and 0: no such. */
void *cafe_secret_base(const char *library);
size_t cafe_secret_size(const char *library);

/* Memory shared with the enclave, for large buffers that a program fills or reads itself: passing it to a
 * secret function of `library` (NULL: the first one) costs one copy less. `bulk` in cafe.toml says how much
 * there is. Starts the enclave if there is none. NULL when there is no room; the reason is in
 * cafe_error_message(). */
void *cafe_alloc(const char *library, size_t bytes);
void cafe_free(void *memory);

/* Where the program implements a CAFE_CALLBACK function under another name, or at run time; 0, or -1 if the
 * name is unknown. By default it is the program's function of that name. */
int cafe_set_callback(const char *name, void (*function)(void));

/* Where the secret function of this name begins in that range: calling it is calling the function. */
void *cafe_secret_address(const char *function);

#ifdef __cplusplus
}
#endif

#endif
