/*
 * The plan of a native snapshot: which memory and which descriptors a process needs before it is the dumped one. Flat,
 * little-endian, used as it is mapped. Its writer is libcriu_py/native/plan.py.
 *
 * What no loader has to know (registers, signal actions, threads, timers, names) is in the memory itself: the code at
 * `resume`, of the extension module in the dumped process (csrc/native/resume.c), puts it right.
 */
#ifndef LCP_PLAN_H
#define LCP_PLAN_H

#include <stdint.h>

#define PLAN_MAGIC "\x93plan\r\n" /* and the NUL behind it: 8 bytes */
#define PLAN_FORMAT 2
#define PLAN_PAGE 4096
#define PLAN_NO_FILE UINT32_MAX
#define PLAN_ANY_SIZE UINT64_MAX
#define PLAN_COMPONENTS 32

/* Offsets are from the beginning of the plan, and multiples of 8. */
struct plan_list {
	uint32_t offset, count;
};

/* A path or a blob; a NUL is behind it. */
struct plan_bytes {
	uint32_t offset, length;
};

struct plan_header {
	char magic[8];
	uint32_t format, header_size;
	uint64_t size;                /* of the plan */
	uint64_t page_size;
	/* What the processor must have: XSAVE components that may be in the frames of threads, and where they are. */
	uint64_t xcr0;
	struct { uint32_t offset, size; } component[PLAN_COMPONENTS]; /* CPUID leaf 0xd; zero where not in xcr0 */
	/* The kernel's pages: [vvar] to the end of [vdso], and [vdso] alone; its content is `vdso_content`. */
	uint64_t special_start, special_end, vdso_start, vdso_end;
	struct plan_bytes vdso_content;
	uint32_t threads;             /* how many; 1: no frame holds XSAVE components */
	uint32_t in_vdso;             /* whether a thread was inside the vdso, so that only the same one will do */
	uint64_t monotonic, boottime; /* these clocks at the dump, in ns */
	/* Where the process goes on: registers of the thread that leads the group. */
	uint64_t resume, stack, fs;
	struct plan_list areas, reads, files, descriptors, watches, locks;
	uint64_t unused[3];
};

enum plan_area_flags {
	PLAN_SHARED = 1,              /* MAP_SHARED */
	PLAN_GROWS_DOWN = 2,          /* a stack: never of a file */
	PLAN_NO_RESERVE = 4,
	PLAN_LOCKED = 8,              /* mlock once it is filled */
	PLAN_PROTECT = 16,            /* map it writable, fill it by reads, then set `protection` */
	PLAN_GUARD = 32,              /* a guard region inside a mapping (MADV_GUARD_INSTALL): anonymous, without content */
};

/* Sorted by address, without overlap. */
struct plan_area {
	uint64_t start, end;
	uint64_t offset;              /* in the file */
	uint32_t file;                /* index into files, or PLAN_NO_FILE: anonymous */
	uint16_t protection;          /* PROT_* */
	uint16_t flags;
	uint64_t advice;              /* bit n: MADV_ number n is given once it is filled (madvise(2)) */
};

/* What is read into an area, from memory.img. */
struct plan_read {
	uint64_t start, end;
	uint64_t offset;
};

enum plan_file_flags {
	PLAN_OF_SNAPSHOT = 1,         /* relative to the snapshot's directory */
	PLAN_WRITABLE = 2,            /* O_RDWR, for a shared mapping */
	PLAN_OF_MEMFD = 4,            /* what `descriptor` is of, a row PLAN_MEMFD */
};

struct plan_file {
	struct plan_bytes path;
	uint64_t size;
	int64_t mtime_ns;             /* not compared for files of the snapshot */
	uint32_t flags;
	int32_t descriptor;
};

enum plan_descriptor_kind {
	PLAN_REQUEST = 1,             /* the copy's end of a SOCK_SEQPACKET pair with the request */
	PLAN_OPEN,                    /* a path: file, directory or device; value: position; form and size are compared */
	PLAN_DUPLICATE,               /* of the descriptor `other`, which is in the list before, or is 0, 1 or 2; its flags are those of it */
	PLAN_SOCKET_PAIR,             /* a new pair of type `value` (SOCK_*): this end, and `other` */
	PLAN_PIPE,                    /* a new pipe with capacity `value`: this is the end that reads, `other` the one that writes */
	PLAN_PIPE_END,                /* as PLAN_PIPE where only one end is open here: `value` 0 reads, 1 writes */
	PLAN_EPOLL,                   /* what it watches is in `watches` */
	PLAN_EVENTFD,                 /* value: its count; flags may have EFD_SEMAPHORE as bit 0 */
	PLAN_TIMERFD,                 /* value: the clock; data: struct plan_timer */
	PLAN_SIGNALFD,                /* value: the mask */
	PLAN_MEMFD,                   /* a new memfd, or that of `other`, opened again; value: position; data: struct plan_memory */
	PLAN_LISTENER,                /* value: domain << 32 | type << 16 | protocol; data: struct plan_listener and address */
	PLAN_INOTIFY,                 /* data: (wd, mask, path NUL)*, see plan.py */
};

/* In the order in which they are made. Those that PLAN_SOCKET_PAIR and PLAN_PIPE name as `other` have a row
 * PLAN_OTHER_END of their own, for flags, right behind. */
#define PLAN_OTHER_END 64

struct plan_descriptor {
	int32_t fd, other;
	uint32_t kind;
	uint32_t flags;               /* O_* for open or F_SETFL (without O_CLOEXEC) */
	uint32_t close_on_exec;
	uint32_t form;                /* PLAN_OPEN: the S_IFMT bits of what must be there; else 0 */
	uint64_t value;
	uint64_t other_offset;        /* PLAN_OPEN: its size, or PLAN_ANY_SIZE; PLAN_LISTENER: permissions of the path */
	struct plan_bytes data;       /* a path, or content that is queued: what a read of `fd` is to find (SOCK_STREAM) */
};

struct plan_watch {
	int32_t epoll, fd;
	uint32_t events, unused;
	uint64_t data;
};

enum plan_lock_kind {
	PLAN_FLOCK = 1,               /* flock(2) */
	PLAN_POSIX,                   /* F_SETLK: of the process */
	PLAN_OFD,                     /* F_OFD_SETLK: of the open file */
};

/* A lock of a file, of a row PLAN_OPEN. */
struct plan_lock {
	int32_t fd;
	uint32_t kind, is_exclusive, unused;
	uint64_t start, length;       /* in bytes; 0: to the end. flock(2): both 0 */
};

struct plan_timer {
	int64_t value_ns, interval_ns; /* until it expires, from the dump; 0: not armed */
	uint64_t expired;
};

/* Its name follows it. */
struct plan_memory {
	uint64_t size, offset;        /* of its content, in memory.img */
	uint32_t mode, seals;         /* permissions, and F_SEAL_* */
};

enum plan_listener_options {
	PLAN_REUSE_ADDRESS = 1, PLAN_REUSE_PORT = 2, PLAN_ONLY_V6 = 4, PLAN_KEEPALIVE = 8, PLAN_NO_DELAY = 16,
};

/* The address that getsockname(2) gave follows it. */
struct plan_listener {
	uint32_t backlog, options;
};

/*
 * What `resume` is jumped to with in rdi, fs set and rsp exactly `stack`, all signals blocked. It is in the loader's own
 * region, which `resume` unmaps when no thread is in it any more. Descriptors are in place, and nothing else is open once
 * `settle` is called.
 */
struct plan_arrival {
	uint64_t region, region_size;
	void (*fall_back)(const char *why, long error); /* start the program conventionally; does not return */
	int64_t monotonic_jump;       /* ns by which CLOCK_MONOTONIC is ahead of where it was at the dump */
	int64_t boottime_jump;
	uint64_t flags;               /* PLAN_STOP: raise SIGSTOP right before the program goes on, for tests */
	void (*settle)(void);         /* close what `fall_back` needs, which is not called any more */
};

#define PLAN_STOP 1

#endif
