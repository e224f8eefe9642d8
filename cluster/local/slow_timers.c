// Loaded into Ray's workers of a local service (LD_PRELOAD). The main thread of each worker looks 100 times a second
// whether a signal has arrived, for which there is no setting. Ten idle workers take 6 % of a core for it. Here its short
// waits take 100 ms. Nothing else runs on that thread's timers; calls to the worker do not wait for them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SHORT_NS 10000000L
#define LONG_NS 100000000L

typedef int settime(int, int, const struct itimerspec *, struct itimerspec *);

int timerfd_settime(int timer, int flags, const struct itimerspec *wanted, struct itimerspec *before) {
    static settime *next;
    if (!next) next = (settime *)dlsym(RTLD_NEXT, "timerfd_settime");
    const struct timespec *wait = &wanted->it_value;
    if (flags == 0 && wait->tv_sec == 0 && wait->tv_nsec > 0 && wait->tv_nsec <= SHORT_NS && syscall(SYS_gettid) == getpid()) {
        struct itimerspec longer = *wanted;
        longer.it_value.tv_nsec = LONG_NS;
        return next(timer, 0, &longer, before);
    }
    return next(timer, flags, wanted, before);
}
