/* The public program: one call per line of standard input, its result and cafe_last_error() on a line each.
 */
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char control[] = "the public program's control pattern"; /* a search for it must succeed */

int main(void) {
    char line[64];
    uint8_t masked[32];
    if (getenv("PROBE_CONTROL"))
        puts(control);
    while (fgets(line, sizeof line, stdin)) {
        int64_t result = -2;
        if (strcmp(line, "echo\n") == 0)
            result = probe_echo(7);
        else if (strcmp(line, "forever\n") == 0)
            result = probe_forever();
        else if (strcmp(line, "fault\n") == 0)
            result = probe_fault();
        else if (strcmp(line, "secret\n") == 0)
            result = probe_secret(masked, 0x5a5a5a5a5a5a5a5a);
        printf("%lld %d %s\n", (long long)result, result < 0 ? (int)cafe_last_error() : 0,
               result < 0 ? cafe_error_message() : "");
        fflush(stdout);
    }
    return 0;
}
