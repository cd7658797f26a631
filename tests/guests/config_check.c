/* config_check.c - judges configurations from standard input, one line each: "ok" or the first bad field. */
#include "vmm.h"

#include <stdio.h>

int main(void) {
    struct vmm_config config;
    while (fread(&config, sizeof config, 1, stdin) == 1) {
        const char *problem = vmm_config_problem(&config);
        (void)puts(problem ? problem : "ok");
    }
    return 0;
}
