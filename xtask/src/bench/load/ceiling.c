// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// What a server on this machine could reach at most: loopback TCP and the page cache, one thread for each connection, no
// checks, no handles, fixed attributes. Serves nfsload only; never put it on a network. All names are in one directory,
// and the files that are read and written are DIR/data and DIR/own. READDIRPLUS is not served.
//
// usage: ceiling PORT DIR

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IN_BYTES = 4 << 20, OUT_BYTES = 1 << 20, MOUNT = 100005, LAST_FRAGMENT = 1u << 31, COPIED = 64 << 10 };
enum { GETATTR = 1, LOOKUP = 3, ACCESS = 4, READ = 6, WRITE = 7, CREATE = 8, MKDIR = 9, REMOVE = 12, RMDIR = 13,
       READDIRPLUS = 17, FSINFO = 19, COMMIT = 21 };

static int dir, files[2];
static const char *const names[2] = { "data", "own" };

struct connection {
    int socket;
    char *in, *out;
    size_t have, filled;   // bytes in `in`, and in `out`
    size_t record;         // where the reply that is being written begins in `out`
};

static void put(struct connection *c, uint32_t word) {
    word = htonl(word);
    memcpy(c->out + c->filled, &word, 4);
    c->filled += 4;
}

static uint32_t get(const char **at) {
    uint32_t word;
    memcpy(&word, *at, 4);
    *at += 4;
    return ntohl(word);
}

static uint64_t get_long(const char **at) {
    uint64_t high = get(at);
    return high << 32 | get(at);
}

// Steps over an opaque, a handle or a name.
static const char *skip(const char **at, uint32_t *len) {
    *len = get(at);
    const char *bytes = *at;
    *at += (*len + 3) & ~3u;
    return bytes;
}

static void send_all(int socket, const char *bytes, size_t n, int flags) {
    while (n > 0) {
        ssize_t sent = send(socket, bytes, n, flags | MSG_NOSIGNAL);
        if (sent <= 0) pthread_exit(NULL);
        bytes += sent, n -= sent;
    }
}

static void flush(struct connection *c, int flags) {
    send_all(c->socket, c->out, c->filled, flags);
    c->filled = 0;
}

// The number of the file is all there is in a handle; directories have the first's.
static void put_handle(struct connection *c, int number) {
    put(c, 8), put(c, 1), put(c, number);
}

static int get_handle(const char **at) {
    uint32_t len;
    const char *bytes = skip(at, &len);
    return len == 8 && bytes[7] == 1;
}

static int number_of(const char *name) {
    return !strcmp(name, names[1]);
}

static void put_attributes(struct connection *c, int number) {
    struct stat st;
    fstat(files[number], &st);
    put(c, 1), put(c, 0644), put(c, 1), put(c, 0), put(c, 0);
    put(c, st.st_size >> 32), put(c, st.st_size);
    for (int i = 0; i < 14; i++) put(c, 0);  // used to ctime, RFC 1813 section 2.6
}

static void get_name(const char **args, char name[256]) {
    uint32_t len;
    skip(args, &len);
    const char *bytes = skip(args, &len);
    memcpy(name, bytes, len & 255);
    name[len & 255] = 0;
}

static void put_lookup(struct connection *c, const char **args) {
    char name[256];
    get_name(args, name);
    put(c, 0), put_handle(c, number_of(name)), put(c, 1), put_attributes(c, number_of(name)), put(c, 0);
}

static void put_name(struct connection *c, const char **args, uint32_t procedure) {
    char name[256];
    get_name(args, name);
    if (procedure == CREATE) close(openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    if (procedure == MKDIR) mkdirat(dir, name, 0755);
    if (procedure == REMOVE) unlinkat(dir, name, 0);
    if (procedure == RMDIR) unlinkat(dir, name, AT_REMOVEDIR);
    put(c, 0);
    if (procedure == CREATE || procedure == MKDIR) put(c, 1), put_handle(c, number_of(name)), put(c, 0);
    put(c, 0), put(c, 0);
}

static void put_read(struct connection *c, const char **args) {
    int file = files[get_handle(args)];
    off_t offset = get_long(args);
    uint32_t count = get(args);
    if (c->filled + count + 128 > OUT_BYTES) {
        // The record's mark counts the data too, so the head goes out at once and the data follows from the cache.
        put(c, 0), put(c, 0), put(c, count), put(c, 0), put(c, count);
        uint32_t mark = htonl((c->filled - c->record - 4 + count) | LAST_FRAGMENT);
        memcpy(c->out + c->record, &mark, 4);
        flush(c, MSG_MORE);
        while (count > 0) {
            ssize_t sent = sendfile(c->socket, file, &offset, count);
            if (sent <= 0) pthread_exit(NULL);
            count -= sent;
        }
        c->record = SIZE_MAX;
        return;
    }
    put(c, 0), put(c, 0), put(c, count), put(c, 0), put(c, count);
    if (pread(file, c->out + c->filled, count, offset) != count) pthread_exit(NULL);
    c->filled += count;
}

static void put_write(struct connection *c, const char **args) {
    uint32_t len;
    int file = files[get_handle(args)];
    off_t offset = get_long(args);
    get(args);
    uint32_t stable = get(args);
    const char *bytes = skip(args, &len);
    if (pwrite(file, bytes, len, offset) != len) pthread_exit(NULL);
    put(c, 0), put(c, 0), put(c, 0), put(c, len), put(c, stable), put(c, 0), put(c, 0);
}

static void put_fsinfo(struct connection *c) {
    put(c, 0), put(c, 0);
    for (int i = 0; i < 2; i++) put(c, 1 << 20), put(c, 1 << 20), put(c, 4096);
    put(c, 1 << 20), put(c, INT32_MAX), put(c, UINT32_MAX), put(c, 0), put(c, 1), put(c, 0x1b);
}

static void put_result(struct connection *c, uint32_t program, uint32_t procedure, const char *args) {
    if (program == MOUNT) {
        if (procedure == 1) put(c, 0), put_handle(c, 0), put(c, 1), put(c, 1);
        return;
    }
    switch (procedure) {
    case GETATTR: put(c, 0), put_attributes(c, get_handle(&args)); break;
    case LOOKUP: put_lookup(c, &args); break;
    case ACCESS: put(c, 0), put(c, 0), put(c, 0x3f); break;
    case READ: put_read(c, &args); break;
    case WRITE: put_write(c, &args); break;
    case CREATE: case MKDIR: case REMOVE: case RMDIR: put_name(c, &args, procedure); break;
    case FSINFO: put_fsinfo(c); break;
    case COMMIT: put(c, 0), put(c, 0), put(c, 0), put(c, 0), put(c, 0); break;
    }
}

static void answer(struct connection *c, const char *call) {
    if (c->filled + COPIED > OUT_BYTES) flush(c, 0);
    uint32_t xid = get(&call), len;
    call += 8;  // CALL, RPC version
    uint32_t program = get(&call);
    call += 4;
    uint32_t procedure = get(&call);
    for (int i = 0; i < 2; i++) call += 4, skip(&call, &len);  // credential, verifier
    c->record = c->filled;
    put(c, 0), put(c, xid), put(c, 1), put(c, 0), put(c, 0), put(c, 0);
    put(c, program != MOUNT && procedure == READDIRPLUS ? 3 : 0);  // PROC_UNAVAIL, SUCCESS
    put_result(c, program, procedure, call);
    if (c->record == SIZE_MAX) return;
    uint32_t mark = htonl((c->filled - c->record - 4) | LAST_FRAGMENT);
    memcpy(c->out + c->record, &mark, 4);
}

static void *serve(void *argument) {
    struct connection c = { .socket = (int)(intptr_t)argument, .in = malloc(IN_BYTES), .out = malloc(OUT_BYTES + 4096) };
    int on = 1;
    setsockopt(c.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (;;) {
        ssize_t n = recv(c.socket, c.in + c.have, IN_BYTES - c.have, 0);
        if (n <= 0) break;
        c.have += n;
        size_t at = 0;
        while (c.have - at >= 4) {
            const char *mark = c.in + at;
            size_t len = get(&mark) & ~LAST_FRAGMENT;
            if (c.have - at - 4 < len) break;
            answer(&c, mark);
            at += 4 + len;
        }
        memmove(c.in, c.in + at, c.have - at);
        c.have -= at;
        if (c.filled) flush(&c, 0);
    }
    close(c.socket);
    free(c.in);
    free(c.out);
    return NULL;
}

static void need(int result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "ceiling: %s: %s\n", what, strerror(errno));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) return fputs("usage: ceiling PORT DIR\n", stderr), 2;
    need(dir = open(argv[2], O_RDONLY | O_DIRECTORY), argv[2]);
    for (int i = 0; i < 2; i++) need(files[i] = openat(dir, names[i], O_RDWR | O_CREAT, 0644), names[i]);
    signal(SIGPIPE, SIG_IGN);  // sendfile(2) has no MSG_NOSIGNAL
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                   .sin_addr = { htonl(INADDR_LOOPBACK) } };
    need(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    need(listen(listener, 1024), "listen");
    for (;;) {
        pthread_t thread;
        int accepted = accept(listener, NULL, NULL);
        if (accepted < 0) continue;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)accepted)) close(accepted);
        else pthread_detach(thread);
    }
}
