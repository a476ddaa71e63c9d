// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// A load generator on libnfs (raw asynchronous API): keeps a number of NFSv3 calls in flight on each connection for a
// while, checks every reply, and prints one line of JSON for each load. See `usage` below.

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>

static const char usage[] =
    "usage: nfsload [OPTIONS] HOST PORT EXPORT OP[:DEPTH[:SIZE]]...\n"
    "\n"
    "Runs the loads one after the other and prints one line of JSON for each: op, depth (calls in flight on each\n"
    "connection), connections, size and bytes (of data), calls, seconds, calls_per_second, mib_per_second,\n"
    "client_cpu_seconds, server_cpu_seconds (with --server-pid), p50_us, p99_us and max_us (time to the reply).\n"
    "\n"
    "OP is one of\n"
    "  null getattr access lookup        small calls about one file\n"
    "  create                            CREATE (unchecked), then REMOVE of what was created, as op remove\n"
    "  mkdir                             MKDIR, then RMDIR, as op rmdir\n"
    "  read write                        1 MiB calls from the file's start to its end, again and again\n"
    "  randread randwrite                4 KiB calls at random offsets of the file\n"
    "  readdirplus                       a directory of --entries files, to its end and again; calls counts entries\n"
    "Writes go to a file that is there already, UNSTABLE with one COMMIT at the end that is measured too, or FILE_SYNC\n"
    "with --stable. SIZE (4k, 1m) replaces the calls' size and is lowered to what FSINFO allows.\n"
    "\n"
    "  --secs S         seconds of each load [1]\n"
    "  --connections N  each with DEPTH calls in flight [1]\n"
    "  --file-mib N     size of the file [256]; it is kept, and filled anew when its size differs\n"
    "  --entries N      files for readdirplus [100000]; the directory is made when it is not there\n"
    "  --name NAME      directory in the export that all is in [nfsload]\n"
    "  --mountport P    port of the MOUNT program [PORT]\n"
    "  --uid N          uid and gid of the calls [this process's]\n"
    "  --stable         WRITE with FILE_SYNC\n"
    "  --patience S     seconds without a reply that are an error [30]\n"
    "  --server-pid P   process whose CPU time is told\n";

enum { MAX_CONNECTIONS = 1024, MAX_DEPTH = 1024, BUCKETS = 64 * 16, PAGE = 4096, MAX_SIZE = 1 << 20, DIR_BYTES = 65536 };

struct options {
    const char *host, *export, *name;
    int port, mount_port, connections, uid, stable, patience, server_pid;
    uint64_t file_bytes, entries;
    double secs;
};

static struct options options = {
    .name = "nfsload", .connections = 1, .uid = -1, .patience = 30, .file_bytes = 256 << 20, .entries = 100000, .secs = 1,
};

struct handle {
    char bytes[NFS3_FHSIZE];
    unsigned len;
};

static struct handle root, work, file, entries;

struct slot {
    struct rpc_context *rpc;
    uint64_t offset;
    double sent;
    char name[32];
    cookie3 cookie;
    cookieverf3 verifier;
};

struct op {
    const char *name;
    unsigned size;             // of the data in one call; 0 for none
    int (*issue)(struct slot *);
    int64_t (*check)(struct slot *, void *reply);  // calls that this reply counts for
};

// What runs now.
static struct {
    const struct op *op;
    unsigned depth, size;
    uint64_t next, limit;      // calls issued; no more than limit
    uint64_t calls, bytes;
    double until;              // nothing is issued after this
    int active;                // calls in flight
    uint64_t histogram[BUCKETS];
    double slowest;
    uint64_t random;
} run;

static struct rpc_context *contexts[MAX_CONNECTIONS];
static char data[MAX_SIZE];

static void fail(const char *what, const char *why) {
    fprintf(stderr, "nfsload: %s: %s\n", what, why);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double own_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

// utime + stime of /proc/PID/stat, proc(5); the command's name in parentheses may hold spaces.
static double server_cpu(void) {
    char path[64], text[1024];
    unsigned long user, system;
    if (!options.server_pid) return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", options.server_pid);
    FILE *f = fopen(path, "r");
    if (!f) fail(path, strerror(errno));
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        fail(path, "cannot read the CPU time");
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

// Sixteen buckets for each doubling of nanoseconds.
static unsigned bucket(double seconds) {
    uint64_t ns = seconds > 16e-9 ? (uint64_t)(seconds * 1e9) : 16;
    unsigned log = 63 - __builtin_clzll(ns);
    return log * 16 + ((ns >> (log - 4)) & 15);
}

static double percentile_us(double part) {
    uint64_t all = 0, sum = 0;
    for (unsigned b = 0; b < BUCKETS; b++) all += run.histogram[b];
    for (unsigned b = 0; b < BUCKETS; b++) {
        sum += run.histogram[b];
        if (sum && sum >= all * part) return (16 + b % 16) * (double)(1ull << (b / 16)) / 16 / 1000;
    }
    return 0;
}

// ---- the event loop -------------------------------------------------------------------------------------------------

static void serve(struct rpc_context *rpc, int events) {
    if (rpc_service(rpc, events) < 0) fail("connection", rpc_get_error(rpc));
}

static void flush(struct rpc_context *rpc) {
    if (rpc_which_events(rpc) & POLLOUT) serve(rpc, POLLOUT);
}

// Turns until `*active` is 0.
static void turn(struct rpc_context **all, int n, int *active) {
    static struct pollfd polled[MAX_CONNECTIONS];
    for (int i = 0; i < n; i++) flush(all[i]);
    while (*active > 0) {
        for (int i = 0; i < n; i++) polled[i] = (struct pollfd){ rpc_get_fd(all[i]), rpc_which_events(all[i]), 0 };
        int ready = poll(polled, n, options.patience * 1000);
        if (ready < 0 && errno != EINTR) fail("poll", strerror(errno));
        if (ready == 0) fail(run.op ? run.op->name : "connection", "no reply within the time of --patience");
        for (int i = 0; i < n; i++) {
            if (!polled[i].revents) continue;
            serve(all[i], polled[i].revents);
            flush(all[i]);
        }
    }
}

static void step(struct slot *slot) {
    if (run.next >= run.limit || (run.until && now() >= run.until)) return;
    slot->sent = now();
    if (run.op->issue(slot)) fail(run.op->name, rpc_get_error(slot->rpc));
    run.active++;
}

static void replied(struct rpc_context *rpc, int status, void *reply, void *private) {
    struct slot *slot = private;
    if (status != RPC_STATUS_SUCCESS) fail(run.op->name, reply ? (char *)reply : rpc_get_error(rpc));
    int64_t calls = run.op->check(slot, reply);
    double took = now() - slot->sent;
    run.histogram[bucket(took)]++;
    if (took > run.slowest) run.slowest = took;
    run.calls += calls;
    run.active--;
    step(slot);
}

// Keeps depth calls of `op` in flight on each connection until `secs` are over or `limit` are issued.
static void drive(const struct op *op, double secs, uint64_t limit) {
    static struct slot slots[MAX_CONNECTIONS * 4];
    unsigned n = run.depth * options.connections;
    if (n > sizeof slots / sizeof *slots) fail("depth", "too many calls in flight over all connections");
    run.op = op;
    run.next = run.calls = run.bytes = 0;
    run.limit = limit;
    run.until = secs ? now() + secs : 0;
    run.slowest = 0;
    run.random = 88172645463325252ull;
    memset(run.histogram, 0, sizeof run.histogram);
    memset(slots, 0, n * sizeof *slots);
    for (unsigned i = 0; i < n; i++) {
        slots[i].rpc = contexts[i % options.connections];
        step(&slots[i]);
    }
    turn(contexts, options.connections, &run.active);
}

// ---- single calls ---------------------------------------------------------------------------------------------------

static int single_active;
static int64_t (*single_check)(void *);
static int64_t single_value;

static void single_done(struct rpc_context *rpc, int status, void *reply, void *private) {
    if (status != RPC_STATUS_SUCCESS) fail(private, reply ? (char *)reply : rpc_get_error(rpc));
    if (single_check) single_value = single_check(reply);
    single_active = 0;
}

// Waits for the one call that was just queued with `single_done`.
static int64_t wait_for(struct rpc_context *rpc, int queued, int64_t (*check)(void *)) {
    if (queued) fail("call", rpc_get_error(rpc));
    single_active = 1;
    single_check = check;
    turn(&rpc, 1, &single_active);
    return single_value;
}

static void expect(int status, const char *what) {
    if (status != NFS3_OK) fail(what, nfsstat3_to_str(status));
}

static void keep(struct handle *handle, const char *bytes, unsigned len) {
    if (len > sizeof handle->bytes) fail("file handle", "longer than 64 bytes");
    memcpy(handle->bytes, bytes, len);
    handle->len = len;
}

static nfs_fh3 fh(struct handle *handle) {
    return (nfs_fh3){ { handle->len, handle->bytes } };
}

static struct rpc_context *connected(int port, int program, int version) {
    struct rpc_context *rpc = rpc_init_context();
    if (!rpc) fail("rpc_init_context", "out of memory");
    if (options.uid >= 0) {
        rpc_set_uid(rpc, options.uid);
        rpc_set_gid(rpc, options.uid);
    }
    single_check = NULL;
    single_active = 1;
    if (rpc_connect_port_async(rpc, options.host, port, program, version, single_done, "connect"))
        fail("connect", rpc_get_error(rpc));
    turn(&rpc, 1, &single_active);
    return rpc;
}

static int64_t mounted(void *reply) {
    mountres3 *res = reply;
    if (res->fhs_status != MNT3_OK) fail("MNT", mountstat3_to_str(res->fhs_status));
    fhandle3 *fh = &res->mountres3_u.mountinfo.fhandle;
    keep(&root, fh->fhandle3_val, fh->fhandle3_len);
    return 0;
}

static void mount_export(void) {
    struct rpc_context *rpc = connected(options.mount_port, MOUNT_PROGRAM, MOUNT_V3);
    wait_for(rpc, rpc_mount3_mnt_async(rpc, single_done, (char *)options.export, "MNT"), mounted);
    rpc_disconnect(rpc, "mounted");
    rpc_destroy_context(rpc);
}

static struct handle found;

// 1 if it is there, and then `found` is its handle; the size if it is a file.
static int64_t looked_up(void *reply) {
    LOOKUP3res *res = reply;
    if (res->status == NFS3ERR_NOENT) return -1;
    expect(res->status, "LOOKUP");
    LOOKUP3resok *ok = &res->LOOKUP3res_u.resok;
    keep(&found, ok->object.data.data_val, ok->object.data.data_len);
    return ok->obj_attributes.attributes_follow ? ok->obj_attributes.post_op_attr_u.attributes.size : 0;
}

static int64_t lookup(struct handle *dir, const char *name) {
    LOOKUP3args args = { { fh(dir), (char *)name } };
    return wait_for(*contexts, rpc_nfs3_lookup_async(*contexts, single_done, &args, "LOOKUP"), looked_up);
}

static int64_t made_dir(void *reply) {
    MKDIR3res *res = reply;
    expect(res->status, "MKDIR");
    return 0;
}

static sattr3 mode(unsigned bits) {
    sattr3 attributes = { 0 };
    attributes.mode.set_it = 1;
    attributes.mode.set_mode3_u.mode = bits;
    return attributes;
}

// The directory's handle; it is made if it is not there. True if it was made.
static int directory(struct handle *in, const char *name, struct handle *out) {
    int made = 0;
    if (lookup(in, name) < 0) {
        MKDIR3args args = { { fh(in), (char *)name }, mode(0777) };
        wait_for(*contexts, rpc_nfs3_mkdir_async(*contexts, single_done, &args, "MKDIR"), made_dir);
        if (lookup(in, name) < 0) fail(name, "not there after MKDIR");
        made = 1;
    }
    *out = found;
    return made;
}

static int64_t created(void *reply) {
    CREATE3res *res = reply;
    expect(res->status, "CREATE");
    return 0;
}

static CREATE3args create_args(struct handle *dir, char *name, unsigned bits) {
    CREATE3args args = { { fh(dir), name }, { UNCHECKED, { .obj_attributes = mode(bits) } } };
    return args;
}

static int64_t committed(void *reply) {
    COMMIT3res *res = reply;
    expect(res->status, "COMMIT");
    return 0;
}

static void commit(void) {
    COMMIT3args args = { fh(&file), 0, 0 };
    wait_for(*contexts, rpc_nfs3_commit_async(*contexts, single_done, &args, "COMMIT"), committed);
}

static unsigned read_max, write_max;

static int64_t told_sizes(void *reply) {
    FSINFO3res *res = reply;
    expect(res->status, "FSINFO");
    read_max = res->FSINFO3res_u.resok.rtmax;
    write_max = res->FSINFO3res_u.resok.wtmax;
    return 0;
}

static void ask_sizes(void) {
    FSINFO3args args = { fh(&root) };
    wait_for(*contexts, rpc_nfs3_fsinfo_async(*contexts, single_done, &args, "FSINFO"), told_sizes);
}

// ---- the operations -------------------------------------------------------------------------------------------------

static int null_issue(struct slot *s) {
    run.next++;
    return rpc_nfs3_null_async(s->rpc, replied, s);
}

static int64_t null_check(struct slot *s, void *reply) {
    (void)s, (void)reply;
    return 1;
}

static int getattr_issue(struct slot *s) {
    GETATTR3args args = { fh(&file) };
    run.next++;
    return rpc_nfs3_getattr_async(s->rpc, replied, &args, s);
}

static int64_t getattr_check(struct slot *s, void *reply) {
    (void)s;
    GETATTR3res *res = reply;
    expect(res->status, "GETATTR");
    if (res->GETATTR3res_u.resok.obj_attributes.size != options.file_bytes) fail("GETATTR", "not the file's size");
    return 1;
}

static int access_issue(struct slot *s) {
    ACCESS3args args = { fh(&file), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_EXECUTE };
    run.next++;
    return rpc_nfs3_access_async(s->rpc, replied, &args, s);
}

static int64_t access_check(struct slot *s, void *reply) {
    (void)s;
    ACCESS3res *res = reply;
    expect(res->status, "ACCESS");
    if (!(res->ACCESS3res_u.resok.access & ACCESS3_READ)) fail("ACCESS", "the file may not be read");
    return 1;
}

static int lookup_issue(struct slot *s) {
    LOOKUP3args args = { { fh(&work), "data" } };
    run.next++;
    return rpc_nfs3_lookup_async(s->rpc, replied, &args, s);
}

static int64_t lookup_check(struct slot *s, void *reply) {
    (void)s;
    LOOKUP3res *res = reply;
    expect(res->status, "LOOKUP");
    nfs_fh3 *got = &res->LOOKUP3res_u.resok.object;
    if (got->data.data_len != file.len || memcmp(got->data.data_val, file.bytes, file.len))
        fail("LOOKUP", "another handle than before");
    return 1;
}

static struct handle scratch;

static char *next_name(struct slot *s) {
    snprintf(s->name, sizeof s->name, "n%" PRIu64, run.next++);
    return s->name;
}

static int create_issue(struct slot *s) {
    CREATE3args args = create_args(&scratch, next_name(s), 0644);
    return rpc_nfs3_create_async(s->rpc, replied, &args, s);
}

static int64_t create_check(struct slot *s, void *reply) {
    (void)s;
    created(reply);
    return 1;
}

static int remove_issue(struct slot *s) {
    REMOVE3args args = { { fh(&scratch), next_name(s) } };
    return rpc_nfs3_remove_async(s->rpc, replied, &args, s);
}

static int64_t remove_check(struct slot *s, void *reply) {
    (void)s;
    REMOVE3res *res = reply;
    expect(res->status, "REMOVE");
    return 1;
}

static int mkdir_issue(struct slot *s) {
    MKDIR3args args = { { fh(&scratch), next_name(s) }, mode(0755) };
    return rpc_nfs3_mkdir_async(s->rpc, replied, &args, s);
}

static int64_t mkdir_check(struct slot *s, void *reply) {
    (void)s;
    made_dir(reply);
    return 1;
}

static int rmdir_issue(struct slot *s) {
    RMDIR3args args = { { fh(&scratch), next_name(s) } };
    return rpc_nfs3_rmdir_async(s->rpc, replied, &args, s);
}

static int64_t rmdir_check(struct slot *s, void *reply) {
    (void)s;
    RMDIR3res *res = reply;
    expect(res->status, "RMDIR");
    return 1;
}

static uint64_t in_order(void) {
    return run.next++ % (options.file_bytes / run.size) * run.size;
}

static uint64_t at_random(void) {
    run.next++;
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return run.random % (options.file_bytes / run.size) * run.size;
}

static int read_at(struct slot *s, uint64_t offset) {
    READ3args args = { fh(&file), offset, run.size };
    s->offset = offset;
    return rpc_nfs3_read_async(s->rpc, replied, &args, s);
}

static int read_issue(struct slot *s) { return read_at(s, in_order()); }
static int randread_issue(struct slot *s) { return read_at(s, at_random()); }

// Every page of the file begins with its offset.
static int64_t read_check(struct slot *s, void *reply) {
    READ3res *res = reply;
    expect(res->status, "READ");
    READ3resok *ok = &res->READ3res_u.resok;
    if (ok->data.data_len != run.size) fail("READ", "fewer bytes than asked for");
    for (unsigned at = 0; at < run.size; at += run.size > PAGE ? run.size - PAGE : PAGE) {
        uint64_t told;
        memcpy(&told, ok->data.data_val + at, sizeof told);
        if (told != s->offset + at) fail("READ", "data of another offset");
    }
    run.bytes += ok->data.data_len;
    return 1;
}

static int write_at(struct slot *s, uint64_t offset) {
    for (uint64_t at = 0; at < run.size; at += PAGE) {
        uint64_t stamp = offset + at;
        memcpy(data + at, &stamp, sizeof stamp);
    }
    WRITE3args args = { fh(&file), offset, run.size, options.stable ? FILE_SYNC : UNSTABLE, { run.size, data } };
    return rpc_nfs3_write_async(s->rpc, replied, &args, s);
}

static int write_issue(struct slot *s) { return write_at(s, in_order()); }
static int randwrite_issue(struct slot *s) { return write_at(s, at_random()); }

static int64_t write_check(struct slot *s, void *reply) {
    (void)s;
    WRITE3res *res = reply;
    expect(res->status, "WRITE");
    if (res->WRITE3res_u.resok.count != run.size) fail("WRITE", "fewer bytes than sent");
    run.bytes += run.size;
    return 1;
}

static int readdirplus_issue(struct slot *s) {
    READDIRPLUS3args args = { fh(&entries), s->cookie, { 0 }, DIR_BYTES, DIR_BYTES };
    memcpy(args.cookieverf, s->verifier, sizeof args.cookieverf);
    run.next++;
    return rpc_nfs3_readdirplus_async(s->rpc, replied, &args, s);
}

static uint64_t listed;

static int64_t readdirplus_check(struct slot *s, void *reply) {
    READDIRPLUS3res *res = reply;
    expect(res->status, "READDIRPLUS");
    READDIRPLUS3resok *ok = &res->READDIRPLUS3res_u.resok;
    int64_t n = 0;
    for (entryplus3 *e = ok->reply.entries; e; e = e->nextentry) {
        s->cookie = e->cookie;
        n += strcmp(e->name, ".") && strcmp(e->name, "..");
    }
    memcpy(s->verifier, ok->cookieverf, sizeof s->verifier);
    listed += n;
    if (!ok->reply.eof) {
        if (!ok->reply.entries) fail("READDIRPLUS", "no entry, and not the end");
        return n;
    }
    if (listed != options.entries) {
        fprintf(stderr, "nfsload: READDIRPLUS told %" PRIu64 " entries of %" PRIu64 "\n", listed, options.entries);
        exit(1);
    }
    listed = s->cookie = 0;
    memset(s->verifier, 0, sizeof s->verifier);
    return n;
}

static const struct op ops[] = {
    { "null", 0, null_issue, null_check },
    { "getattr", 0, getattr_issue, getattr_check },
    { "access", 0, access_issue, access_check },
    { "lookup", 0, lookup_issue, lookup_check },
    { "create", 0, create_issue, create_check },
    { "mkdir", 0, mkdir_issue, mkdir_check },
    { "readdirplus", 0, readdirplus_issue, readdirplus_check },
    { "read", 1 << 20, read_issue, read_check },
    { "write", 1 << 20, write_issue, write_check },
    { "randread", 4096, randread_issue, read_check },
    { "randwrite", 4096, randwrite_issue, write_check },
};
static const struct op remove_op = { "remove", 0, remove_issue, remove_check };
static const struct op rmdir_op = { "rmdir", 0, rmdir_issue, rmdir_check };

// ---- preparation ----------------------------------------------------------------------------------------------------

static const struct op *op_named(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strlen(ops[i].name) == len && !strncmp(ops[i].name, name, len)) return &ops[i];
    return NULL;
}

static void prepare_file(void) {
    if (lookup(&work, "data") != (int64_t)options.file_bytes) {
        CREATE3args args = create_args(&work, "data", 0666);
        args.how.createhow3_u.obj_attributes.size.set_it = 1;
        wait_for(*contexts, rpc_nfs3_create_async(*contexts, single_done, &args, "CREATE"), created);
        if (lookup(&work, "data") < 0) fail("data", "not there after CREATE");
        file = found;
        int stable = options.stable;
        run.depth = 2;
        run.size = write_max;
        options.stable = 0;
        drive(op_named("write", 5), 0, options.file_bytes / run.size);
        commit();
        options.stable = stable;
    }
    file = found;
}

static void prepare_entries(void) {
    if (!directory(&work, "entries", &entries)) return;
    scratch = entries;
    run.depth = 16;
    drive(op_named("create", 6), 0, options.entries);
}

// ---- measuring ------------------------------------------------------------------------------------------------------

static void measure(const struct op *op, double secs, uint64_t limit) {
    double server = server_cpu(), own = own_cpu(), began = now();
    drive(op, secs, limit);
    if (op->issue == write_issue || op->issue == randwrite_issue) commit();
    double seconds = now() - began;
    own = own_cpu() - own;
    server = server_cpu() - server;
    printf("{\"op\":\"%s\",\"depth\":%u,\"connections\":%d,\"size\":%u,\"calls\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.6f,\"calls_per_second\":%.1f,\"mib_per_second\":%.1f,\"client_cpu_seconds\":%.4f",
           op->name, run.depth, options.connections, op->size ? run.size : 0, run.calls, run.bytes, seconds,
           run.calls / seconds, run.bytes / seconds / (1 << 20), own);
    if (options.server_pid) printf(",\"server_cpu_seconds\":%.2f", server);
    printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", percentile_us(0.5), percentile_us(0.99),
           run.slowest * 1e6);
    fflush(stdout);
}

// Makes objects for the given time, then removes them all.
static void make_and_remove(const struct op *make, const struct op *remove) {
    char name[32];
    snprintf(name, sizeof name, "scratch.%d", (int)getpid());
    directory(&work, name, &scratch);
    measure(make, options.secs, UINT64_MAX);
    measure(remove, 0, run.next);
    RMDIR3args args = { { fh(&work), name } };
    wait_for(*contexts, rpc_nfs3_rmdir_async(*contexts, single_done, &args, "RMDIR"), NULL);
}

static unsigned parse_size(const char *text) {
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end == 'k') n <<= 10, end++;
    else if (*end == 'm') n <<= 20, end++;
    if (*end || n < PAGE || n > MAX_SIZE || n % PAGE) fail(text, "give a size from 4k to 1m, a multiple of 4k");
    return n;
}

static void one(const char *spec) {
    const char *depth = strchr(spec, ':');
    const char *size = depth ? strchr(depth + 1, ':') : NULL;
    const struct op *op = op_named(spec, depth ? (size_t)(depth - spec) : strlen(spec));
    if (!op) fail(spec, "no such operation: see nfsload --help");
    run.depth = depth ? atoi(depth + 1) : 1;
    if (run.depth < 1 || run.depth > MAX_DEPTH) fail(spec, "give a depth from 1 to 1024");
    unsigned wanted = run.depth;
    if (op->issue == readdirplus_issue) {
        prepare_entries();
        wanted = 1;
    }
    run.depth = wanted;
    int writes = op->check == write_check;
    unsigned most = writes ? write_max : read_max;
    run.size = size ? parse_size(size + 1) : op->size;
    if (run.size > most) run.size = most;
    if (op->issue == create_issue) make_and_remove(op, &remove_op);
    else if (op->issue == mkdir_issue) make_and_remove(op, &rmdir_op);
    else measure(op, options.secs, UINT64_MAX);
}

// ---- command line ---------------------------------------------------------------------------------------------------

static double number(const char *name, const char *value) {
    char *end;
    if (!value) fail(name, "needs a value");
    double n = strtod(value, &end);
    if (*end || end == value || n < 0) fail(name, "needs a number");
    return n;
}

static int set_option(const char *name, const char *value) {
    if (!strcmp(name, "--stable")) return options.stable = 1, 0;
    if (!strcmp(name, "--name")) return options.name = value ? value : "nfsload", 1;
    double n = number(name, value);
    if (!strcmp(name, "--secs")) options.secs = n;
    else if (!strcmp(name, "--connections")) options.connections = n;
    else if (!strcmp(name, "--file-mib")) options.file_bytes = (uint64_t)n << 20;
    else if (!strcmp(name, "--entries")) options.entries = n;
    else if (!strcmp(name, "--mountport")) options.mount_port = n;
    else if (!strcmp(name, "--uid")) options.uid = n;
    else if (!strcmp(name, "--patience")) options.patience = n;
    else if (!strcmp(name, "--server-pid")) options.server_pid = n;
    else fail(name, "no such option: see nfsload --help");
    return 1;
}

int main(int argc, char **argv) {
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (!strcmp(argv[at], "--help")) return fputs(usage, stdout), 0;
        at += set_option(argv[at], argv[at + 1]);
    }
    if (argc - at < 4) return fputs(usage, stderr), 2;
    if (options.connections < 1 || options.connections > MAX_CONNECTIONS) fail("--connections", "give 1 to 1024");
    if (options.secs <= 0 || options.file_bytes < MAX_SIZE) fail("--secs, --file-mib", "give more than 0");
    signal(SIGPIPE, SIG_IGN);
    options.host = argv[at];
    options.port = atoi(argv[at + 1]);
    options.export = argv[at + 2];
    if (!options.mount_port) options.mount_port = options.port;
    mount_export();
    for (int i = 0; i < options.connections; i++) contexts[i] = connected(options.port, NFS_PROGRAM, NFS_V3);
    ask_sizes();
    if (read_max > MAX_SIZE) read_max = MAX_SIZE;
    if (write_max > MAX_SIZE) write_max = MAX_SIZE;
    directory(&root, options.name, &work);
    prepare_file();
    for (at += 3; at < argc; at++) one(argv[at]);
    return 0;
}
