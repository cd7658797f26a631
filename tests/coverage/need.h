/* need.h - a check that is never compiled away. */
#ifndef NEED_H
#define NEED_H

#include <stdio.h>
#include <stdlib.h>

#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);             \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
