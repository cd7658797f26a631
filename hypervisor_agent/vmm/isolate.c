/* isolate.c - before anything is received: die with the agent, hold no stray descriptor, leave no dump. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DESCRIPTORS (VMM_FIRST_VCPU_FD + (int)CAFE_MAX_VCPUS)

/* The kernel sends SIGKILL when the thread that spawned us ends; had it ended before we asked, our parent is
 * no longer the process at the other end of the socket. */
static bool bind_to_agent(void) {
    struct ucred agent;
    socklen_t length = sizeof agent;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return false;
    if (getsockopt(VMM_FD, SOL_SOCKET, SO_PEERCRED, &agent, &length) != 0)
        return false;
    errno = ESRCH;
    return agent.pid == getppid();
}

static bool limit(int resource, rlim_t value) {
    struct rlimit both = {.rlim_cur = value, .rlim_max = value};
    return setrlimit((__rlimit_resource_t)resource, &both) == 0;
}

enum vmm_step vmm_isolate(void) {
    if (close_range(VMM_FD + 1, ~0u, 0) != 0 || !bind_to_agent())
        return VMM_STEP_ISOLATE;
    if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return VMM_STEP_ISOLATE;
    if (!limit(RLIMIT_CORE, 0) || !limit(RLIMIT_FSIZE, 0) || !limit(RLIMIT_NOFILE, (rlim_t)MAX_DESCRIPTORS))
        return VMM_STEP_ISOLATE;
    return VMM_STEP_NONE;
}
