/* The two calls of cafe.h that the program makes, where nothing is protected and nothing can fail. */
#include <cafe.h>

int cafe_last_error(void) {
    return 0;
}

const char *cafe_error_message(void) {
    return "";
}
