/* Preloaded below Python and torch: a folder that refuses what mounts of object storage refuse.

   STORAGE_FOLDER  everything below this path (no trailing slash) is concerned
   STORAGE_REFUSE  any of "rename append link symlink fsync rewrite": answered with ENOTSUP
   STORAGE_FAIL    ENOSPC, EIO or EROFS: what write(2) answers below the folder ...
   STORAGE_AFTER   ... once a checkpoint of this name exists (the disk works until then) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
    const char *folder = getenv("STORAGE_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    return length && path && strncmp(path, folder, length) == 0 &&
           (path[length] == '/' || path[length] == 0);
}

static int refuses(const char *what) {
    const char *all = getenv("STORAGE_REFUSE");
    return all && strstr(all, what) != NULL;
}

static int refused(const char *what, const char *path) {
    if (!below(path) || !refuses(what)) return 0;
    errno = ENOTSUP;
    return 1;
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int write_fails(int fd) {
    const char *fail = getenv("STORAGE_FAIL"), *after = getenv("STORAGE_AFTER");
    int rewrite = refuses("rewrite");
    if ((!fail && !rewrite) || fd <= 2 || !fd_below(fd)) return 0;
    if (fail && (!after || access(after, F_OK) == 0)) {
        errno = strcmp(fail, "EIO") == 0 ? EIO : strcmp(fail, "EROFS") == 0 ? EROFS : ENOSPC;
        return 1;
    }
    struct stat status;
    if (rewrite && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        lseek(fd, 0, SEEK_CUR) < status.st_size) {
        errno = ENOTSUP;
        return 1;
    }
    return 0;
}

int rename(const char *from, const char *to) {
    return refused("rename", to) || refused("rename", from) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    return refused("rename", to) || refused("rename", from) ? -1 : REAL(renameat)(a, from, b, to);
}
int link(const char *from, const char *to) {
    return refused("link", to) ? -1 : REAL(link)(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return refused("link", to) ? -1 : REAL(linkat)(a, from, b, to, flags);
}
int symlink(const char *from, const char *to) {
    return refused("symlink", to) ? -1 : REAL(symlink)(from, to);
}
int symlinkat(const char *from, int b, const char *to) {
    return refused("symlink", to) ? -1 : REAL(symlinkat)(from, b, to);
}
int fsync(int fd) {
    if (refuses("fsync") && fd_below(fd)) {
        errno = ENOTSUP;
        return -1;
    }
    return REAL(fsync)(fd);
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list list;                                                          \
        va_start(list, flags);                                                 \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(list, mode_t) : 0; \
        va_end(list);                                                          \
        if ((flags & O_APPEND) && refused("append", path)) return -1;          \
        return REAL(name)(path, flags, mode);                                  \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                           \
    int name(int at, const char *path, int flags, ...) {                       \
        va_list list;                                                          \
        va_start(list, flags);                                                 \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(list, mode_t) : 0; \
        va_end(list);                                                          \
        if ((flags & O_APPEND) && refused("append", path)) return -1;          \
        return REAL(name)(at, path, flags, mode);                              \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                            \
    FILE *name(const char *path, const char *mode) {                           \
        if (strchr(mode, 'a') && refused("append", path)) return NULL;         \
        return REAL(name)(path, mode);                                         \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    return write_fails(fd) ? -1 : REAL(write)(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return write_fails(fd) ? -1 : REAL(writev)(fd, parts, count);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    return write_fails(out) ? -1 : REAL(sendfile)(out, in, offset, count);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
    return write_fails(out) ? -1 : REAL(sendfile64)(out, in, offset, count);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    return write_fails(out) ? -1 : REAL(copy_file_range)(in, from, out, to, size, flags);
}
