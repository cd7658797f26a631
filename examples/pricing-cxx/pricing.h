/* Prices that follow customer, quantity and stock. What they follow, and how, stays in the enclave. */
#ifndef PRICING_H
#define PRICING_H

#include <cafe.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PRICING_NAME_BYTES 16 /* longest name of a customer or product, with its NUL */
#define PRICING_MOST_LINES 64

struct pricing_line {
    char product[PRICING_NAME_BYTES];
    uint32_t quantity;
};

struct pricing_price {
    int64_t cents; /* of the whole line */
    int32_t stock; /* as the program said; -1: it does not know */
};

enum pricing_result {
    PRICING_OK = 0,
    PRICING_UNKNOWN = 1,   /* no such product */
    PRICING_ARGUMENT = -1, /* no lines or too many, a quantity of 0, a name that does not end */
    PRICING_FAILED = -2,   /* the call could not be carried out: cafe_last_error() */
};

/* The program's own: how many of a product there are; -1 if it does not know. Asked once for every line. */
CAFE_CALLBACK CAFE_ON_ERROR(-1) int32_t pricing_stock(const char *product CAFE_STR(PRICING_NAME_BYTES));

/* Price every line of a basket. */
CAFE_SECRET CAFE_ON_ERROR(-2) int pricing_quote(const char *customer CAFE_STR(PRICING_NAME_BYTES),
                                                const struct pricing_line *lines CAFE_IN(count),
                                                uint32_t count, struct pricing_price *prices CAFE_OUT(count));

/* The list price of `quantity` pieces in cents. An unknown product is an exception that nobody catches in the
 * enclave: the call fails, and the caller gets -2. */
CAFE_SECRET CAFE_ON_ERROR(-2) int64_t
    pricing_list(const char *product CAFE_STR(PRICING_NAME_BYTES), uint32_t quantity);

#ifdef __cplusplus
}
#endif

#endif
