/* A time of day that a test can step, without a change of the machine's clock. Loaded into affectd with LD_PRELOAD.
 * The file in FAULTS_CLOCK holds the step in seconds, as eight bytes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *step_s;

__attribute__((constructor)) static void map_step(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *step_s, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        step_s = map;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && step_s)
        time->tv_sec += *step_s;
    return result;
}

/* The clock of a test machine may not be synchronized. affectd then leaves out the time of day. */
int adjtimex(struct timex *state) {
    int result = (int)syscall(SYS_adjtimex, state);
    return result < 0 ? result : TIME_OK;
}
