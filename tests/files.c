/* Makes one operation on files fail, be cut short, or end the process; loaded with LD_PRELOAD.

   Counted are the calls of the C library that open, read, write, rename, remove, cut or flush what lies below
   one folder. What the C library calls within itself (fwrite) does not pass here. injection.py is the other
   side. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL, SHORT, LASTING, STOP_SIGNAL };

static char root[PATH_MAX];
static size_t root_length;
static long at;
static int action, error_number, reads_too, note = -1;
static atomic_long seen;

/* Begin to count. folder: what counts lies in it; number: which operation, from 1 on, is hit, 0 for none;
   what: COUNT, KILL (in the middle of it, if it writes), FAIL with an error number, SHORT (writes half, every
   time from then on), LASTING (fails, and so does every later one), STOP_SIGNAL (SIGTERM comes, and it goes
   well); reading: whether reading counts too;
   journal: a file that is told every operation, or NULL. */
void faults_arm(const char *folder, long number, int what, int error, int reading, const char *journal) {
    if (journal) note = syscall(SYS_openat, AT_FDCWD, journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    at = number, action = what, error_number = error, reads_too = reading;
    atomic_store(&seen, 0);
}

long faults_seen(void) { return atomic_load(&seen); }

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int path_counts(int directory, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!root_length || !path) return 0;
    if (path[0] == '/') return below(path);
    ssize_t length;
    if (directory == AT_FDCWD)
        length = readlink("/proc/self/cwd", whole, PATH_MAX - 1);
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = readlink(link, whole, PATH_MAX - 1);
    }
    if (length < 0) return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return below(whole);
}

static int file_counts(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!root_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

enum { PASS, STOP, HALF, HALF_THEN_KILL };

/* Say what becomes of an operation that counts. */
static int verdict(const char *name, const char *path, int writes) {
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (note >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path ? path : "");
        syscall(SYS_write, note, line, length);
    }
    int hit = at && (number == at || (number > at && (action == LASTING || action == SHORT)));
    if (!hit || action == COUNT) return PASS;
    if (action == KILL) {
        if (writes) return HALF_THEN_KILL;
        raise(SIGKILL);
    }
    if (action == STOP_SIGNAL) {
        kill(getpid(), SIGTERM);
        return PASS;
    }
    if (action == SHORT) return writes ? HALF : PASS;
    errno = error_number;
    return STOP;
}

#define REAL(type, name, ...)                                  \
    static type (*real)(__VA_ARGS__);                          \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPEN(name, directory, ...)                                                       \
    mode_t mode = 0;                                                                     \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                 \
        va_list more;                                                                    \
        va_start(more, flags);                                                           \
        mode = va_arg(more, mode_t);                                                     \
        va_end(more);                                                                    \
    }                                                                                    \
    int changes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);                       \
    if ((changes || reads_too) && path_counts(directory, path) &&                        \
        verdict(changes ? "open" : "open-to-read", path, 0) == STOP)                     \
        return -1;                                                                       \
    return real(__VA_ARGS__, mode)

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...);
    OPEN("open", AT_FDCWD, path, flags);
}
int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    OPEN("open", AT_FDCWD, path, flags);
}
int openat(int directory, const char *path, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...);
    OPEN("open", directory, directory, path, flags);
}
int openat64(int directory, const char *path, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...);
    OPEN("open", directory, directory, path, flags);
}

/* A system writes a few bytes wholly or not at all, whenever the process is killed. */
#define WHOLE 16

#define WRITE(descriptor, size, call, half)                              \
    if (file_counts(descriptor)) switch (verdict("write", NULL, 1)) {    \
        case STOP: return -1;                                            \
        case HALF: return half;                                          \
        case HALF_THEN_KILL: if (size > WHOLE) (void)!half; raise(SIGKILL); \
    }                                                                    \
    return call

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    WRITE(descriptor, size, real(descriptor, data, size), real(descriptor, data, (size + 1) / 2));
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t place) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    WRITE(descriptor, size, real(descriptor, data, size, place), real(descriptor, data, (size + 1) / 2, place));
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITE(descriptor, size, real(descriptor, data, size, place), real(descriptor, data, (size + 1) / 2, place));
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    WRITE(descriptor, WHOLE + 1, real(descriptor, parts, count), real(descriptor, parts, count > 1 ? count / 2 : 1));
}

#define ON_FILE(name, descriptor, ...)                                                     \
    if (file_counts(descriptor) && verdict(name, NULL, 0) == STOP) return -1;              \
    return real(__VA_ARGS__)
#define ON_PATH(name, directory, path, ...)                                                \
    if (path_counts(directory, path) && verdict(name, path, 0) == STOP) return -1;         \
    return real(__VA_ARGS__)
#define READ(descriptor, ...)                                                              \
    if (reads_too && file_counts(descriptor) && verdict("read", NULL, 0) == STOP) return -1; \
    return real(__VA_ARGS__)

ssize_t read(int descriptor, void *data, size_t size) {
    REAL(ssize_t, read, int, void *, size_t);
    READ(descriptor, descriptor, data, size);
}
ssize_t pread64(int descriptor, void *data, size_t size, off64_t place) {
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    READ(descriptor, descriptor, data, size, place);
}
int fsync(int descriptor) {
    REAL(int, fsync, int);
    ON_FILE("fsync", descriptor, descriptor);
}
int fdatasync(int descriptor) {
    REAL(int, fdatasync, int);
    ON_FILE("fdatasync", descriptor, descriptor);
}
int ftruncate(int descriptor, off_t size) {
    REAL(int, ftruncate, int, off_t);
    ON_FILE("ftruncate", descriptor, descriptor, size);
}
int ftruncate64(int descriptor, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    ON_FILE("ftruncate", descriptor, descriptor, size);
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    ON_PATH("rename", AT_FDCWD, from, from, to);
}
int renameat(int one, const char *from, int other, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    ON_PATH("rename", one, from, one, from, other, to);
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    ON_PATH("link", AT_FDCWD, to, from, to);
}
int symlink(const char *from, const char *to) {
    REAL(int, symlink, const char *, const char *);
    ON_PATH("symlink", AT_FDCWD, to, from, to);
}
int unlink(const char *path) {
    REAL(int, unlink, const char *);
    ON_PATH("unlink", AT_FDCWD, path, path);
}
int unlinkat(int directory, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    ON_PATH("unlink", directory, path, directory, path, flags);
}
int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    ON_PATH("rmdir", AT_FDCWD, path, path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    ON_PATH("mkdir", AT_FDCWD, path, path, mode);
}
int mkdirat(int directory, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    ON_PATH("mkdir", directory, path, directory, path, mode);
}
int truncate(const char *path, off_t size) {
    REAL(int, truncate, const char *, off_t);
    ON_PATH("truncate", AT_FDCWD, path, path, size);
}
int truncate64(const char *path, off64_t size) {
    REAL(int, truncate64, const char *, off64_t);
    ON_PATH("truncate", AT_FDCWD, path, path, size);
}
