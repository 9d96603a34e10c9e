#define _GNU_SOURCE
#include "become/become.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "become/blob.h"
#include "become/machine.h"
#include "become/places.h"
#include "become/reader.h"
#include "become/vdso.h"
#include "common/cleanup.h"
#include "common/descriptors.h"

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define PLAN "plan"
#define LARGEST_PLAN (64 << 20)
#define DISTANCE (1ul << 30) /* from areas, which grow */
#define BEHIND (1ul << 24)   /* room for the kernel's pages, which stay when the region is gone */
#define TRIES 100
#define SECOND 1000000000LL
#define HOW_NO_FALLBACK 1 /* as in libcriu_py/dump/native_arrival.py */
#define HOW_QUIET 2

/* ---- the plan ---------------------------------------------------------------- */

int lcp_plan_open(struct plan *plan, int directory, struct why *why)
{
	AUTO_CLOSE int fd = openat(directory, PLAN, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	const char *fault = "it is not a plan of libcriu_py";
	struct stat status;

	if (fd < 0 || fstat(fd, &status))
		return lcp_why(why, "its plan cannot be opened: %s; make the snapshot anew", strerror(errno));
	plan->at = MAP_FAILED;
	if (S_ISREG(status.st_mode) && status.st_size > 0 && status.st_size <= LARGEST_PLAN) {
		plan->size = (size_t)status.st_size;
		plan->at = mmap(NULL, plan->size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	}
	if (plan->at != MAP_FAILED)
		fault = lcp_plan_fault(plan->at, plan->size);
	if (fault)
		return lcp_why(why, "its plan is damaged (%s); make the snapshot anew", fault);
	return lcp_machine_check(plan->at, why);
}

#ifdef __x86_64__

/* ---- the region ---------------------------------------------------------------- */

/* A part of memory that is nowhere near the program's: the blob's code and what it knows, and behind that the plan. */
struct region {
	uint64_t start, code, data, size;
	uint64_t special, vdso;  /* of the kernel's pages, where they are not those of the plan */
	int vdso_copy;
	struct blob_context *context;
	char *free;              /* behind the context, what is left */
};

static size_t pages(size_t size)
{
	return (size + PLAN_PAGE - 1) & ~(size_t)(PLAN_PAGE - 1);
}

static int is_clear(const struct plan_header *plan, uint64_t start, uint64_t end)
{
	plan_for_each(struct plan_area, area, plan, plan->areas)
		if (area->start < end + DISTANCE && start < area->end + DISTANCE)
			return 0;
	return plan->special_start >= end + DISTANCE || start >= plan->special_end + DISTANCE;
}

/* Choose by chance, so that nobody can know where code is; what is in the way of this process's the kernel refuses. */
static int find_region(struct region *region, const struct plan_header *plan)
{
	const uint64_t lowest = DISTANCE, room = HIGHEST_ADDRESS - 2 * DISTANCE - region->size - BEHIND;
	uint64_t chance[TRIES];
	void *got;

	if (getrandom(chance, sizeof(chance), 0) != sizeof(chance))
		return -1;
	for (int i = 0; i < TRIES; i++) {
		region->start = lowest + chance[i] % room / PLAN_PAGE * PLAN_PAGE;
		if (!is_clear(plan, region->start, region->start + region->size + BEHIND))
			continue;
		got = mmap((void *)region->start, region->size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (got == (void *)region->start)
			return 0;
		if (got != MAP_FAILED) /* of a kernel that takes it for a hint */
			munmap(got, region->size);
		else if (errno != EEXIST)
			return -1;
	}
	errno = EEXIST;
	return -1;
}

static size_t size_of_words(char *const *words)
{
	size_t size = sizeof(*words);

	for (; words && *words; words++)
		size += sizeof(*words) + strlen(*words) + 1;
	return size;
}

static void *take(struct region *region, const void *data, size_t size)
{
	void *at = region->free;

	memcpy(at, data, size);
	region->free += (size + 7) & ~(size_t)7;
	return at;
}

static char **take_words(struct region *region, char *const *words)
{
	char **copy = (char **)region->free, *text;
	size_t count = 0;

	while (words && words[count])
		count++;
	text = (char *)(copy + count + 1);
	for (size_t i = 0; i < count; i++) {
		copy[i] = text;
		text = stpcpy(text, words[i]) + 1;
	}
	copy[count] = NULL;
	region->free = (char *)(((uintptr_t)text + 7) & ~(uintptr_t)7);
	return copy;
}

static int make_region(struct region *region, const struct become *this, const struct places *places, size_t plan_size)
{
	const size_t lists = places->plan->files.count * sizeof(int) + places->kept_count * sizeof(struct blob_kept) + 64;

	region->code = (uint64_t)(lcp_blob_end - lcp_blob_begin);
	region->data = pages(sizeof(*region->context) + lists + size_of_words(this->command) + size_of_words(this->env));
	region->size = region->code + region->data + pages(plan_size);
	if (find_region(region, places->plan))
		return -1;
	region->context = (void *)(region->start + region->code);
	region->free = (char *)(region->context + 1);
	return 0;
}

/* Keep a vdso that is not this kernel's, whose own goes behind the region; 0 or -1. */
static int place_vdso(struct region *region, const struct plan_header *plan, struct why *why)
{
	region->vdso_copy = -1;
	region->special = plan->special_start;
	region->vdso = plan->vdso_start;
	if (lcp_vdso_is_same(plan))
		return 0;
	region->special = region->start + pages(region->size) + BEHIND / 2;
	region->vdso_copy = lcp_vdso_make(plan, region->special, &region->vdso, why);
	return region->vdso_copy < 0 ? -1 : 0;
}

/* ---- what the blob knows ------------------------------------------------------------ */

static const char *const stages[] = {
	[BLOB_UNMAP] = "memory cannot be unmapped", [BLOB_VDSO] = "the vdso cannot be placed",
	[BLOB_MAP] = "memory of the snapshot cannot be mapped", [BLOB_READ] = "memory.img cannot be read",
	[BLOB_PROTECT] = "memory cannot be protected", [BLOB_ADVISE] = "memory cannot be kept from children",
	[BLOB_GUARD] = "a guard region cannot be made", [BLOB_LOCK] = "memory cannot be locked",
	[BLOB_TAKE] = "another process holds a lock of a file",
	[BLOB_ENTER] = "thread-local memory cannot be set", [BLOB_STAGES] = " (errno ",
};

static int64_t since(clockid_t clock, uint64_t then)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec - (int64_t)then;
}

/* `code` is where the blob's function is to be. */
static void *in_region(const struct region *region, void (*function)(void))
{
	return (void *)(region->start + ((uintptr_t)function - (uintptr_t)lcp_blob_begin));
}

static void describe_start(struct region *region, const struct become *this)
{
	struct blob_context *context = region->context;
	const char *first = this->command ? "libcriu-py: starting conventionally: " : "libcriu-py: ";

	strcpy(context->first, this->flags & BECOME_ALONE ? "E" : first);
	strcpy(context->last, "libcriu-py: cannot be started either: ");
	for (int i = 0; i <= BLOB_STAGES; i++)
		strcpy(context->text[i], stages[i]);
	context->flags = (this->flags & BECOME_QUIET ? BLOB_QUIET : 0u) | (this->flags & BECOME_ALONE ? BLOB_TELL : 0u) |
			 (this->command ? 0u : BLOB_NO_FALLBACK);
	context->argv = take_words(region, this->command);
	context->envp = take_words(region, this->env);
	context->program = context->argv[0];
	context->blocked = this->blocked;
	context->ignored = this->ignored;
	context->absent = this->absent;
}

static void describe(struct region *region, const struct become *this, const struct places *places, int slot,
		     int report)
{
	struct blob_context *context = region->context;
	const struct plan_header *plan = places->plan;

	context->arrival.region = region->start;
	context->arrival.region_size = region->size;
	context->arrival.fall_back = (void (*)(const char *, long))in_region(region, (void (*)(void))lcp_blob_fall_back);
	context->arrival.settle = (void (*)(void))in_region(region, lcp_blob_settle);
	context->arrival.monotonic_jump = since(CLOCK_MONOTONIC, plan->monotonic);
	context->arrival.boottime_jump = since(CLOCK_BOOTTIME, plan->boottime);
	context->arrival.flags = this->flags & BECOME_STOP ? PLAN_STOP : 0;
	context->plan = (void *)(region->start + region->code + region->data);
	context->files = take(region, places->files, plan->files.count * sizeof(int));
	context->kept = take(region, places->kept, places->kept_count * sizeof(struct blob_kept));
	context->kept_count = places->kept_count;
	context->memory = places->memory;
	context->report = report;
	context->vdso_copy = region->vdso_copy;
	context->special = region->special;
	context->vdso = region->vdso;
	context->request = slot;
	context->slot = -1;
	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
		if (row->kind == PLAN_REQUEST)
			context->slot = row->fd;
	describe_start(region, this);
}

/* ---- the jump ---------------------------------------------------------------------- */

/* The kernel would go on writing to where glibc's thread-local memory was. */
static int leave_rseq(void)
{
#ifdef RSEQ_SIG
	const unsigned int sizes[] = { 32, __rseq_size, (__rseq_size + 31) & ~31u };
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (!__rseq_size)
		return 0;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		if (!syscall(SYS_rseq, area, sizes[i], RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
			return 0;
	return -1;
#else
	return 0;
#endif
}

/* Returns only if it cannot be, -1 with errno. The plan is where it says, whatever the result. */
static int jump(const struct region *region, struct places *places, size_t plan_size)
{
	void (*enter)(struct blob_context *) =
		(void (*)(struct blob_context *))in_region(region, (void (*)(void))lcp_blob_enter);
	const uint64_t all = ~0ull;

	if (mremap((void *)places->plan, plan_size, plan_size, MREMAP_MAYMOVE | MREMAP_FIXED, region->context->plan) ==
	    MAP_FAILED)
		return -1;
	places->plan = region->context->plan;
	/* Code that is written, and then made executable, some systems refuse; ours is moved as it is. */
	if (leave_rseq() || mremap((void *)lcp_blob_begin, region->code, region->code, MREMAP_MAYMOVE | MREMAP_FIXED,
				   (void *)region->start) == MAP_FAILED)
		return -1;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all)); /* libc would leave out two */
	enter(region->context);
	return -1;
}

/* As a copy does that cannot take over (libcriu_py/snapshot/request.py). */
static void tell_sender(int slot, const struct why *why)
{
	char message[sizeof(why->text) + 1] = "E";

	strcpy(message + 1, why->text);
	lcp_send(slot, message, strlen(message));
}

static int go(const struct become *this, struct places *places, size_t plan_size, int *slot, int *control,
	      int *report, struct why *why)
{
	const char how = (char)((this->command ? 0 : HOW_NO_FALLBACK) | (this->flags & BECOME_QUIET ? HOW_QUIET : 0));
	struct region region;

	if (this->flags & BECOME_ALONE && places->plan->locks.count)
		return lcp_why(why, "a copy that waits for its start would hold the program's locks of files");
	if (lcp_places_yield(places, slot) || lcp_places_yield(places, control) || lcp_places_yield(places, report))
		return lcp_why(why, "a descriptor cannot be moved: %s", strerror(errno));
	if (lcp_places_make(places, *slot, this->arguments, why))
		return -1;
	if (*control >= 0) {
		if (lcp_places_hand_over(places, *control, how, why))
			return -1;
		close(lcp_keep_fd(control));
	}
	lcp_places_settle(places);
	if (make_region(&region, this, places, plan_size))
		return lcp_why(why, "there is no room for the loader: %s", strerror(errno));
	if (place_vdso(&region, places->plan, why))
		return -1;
	describe(&region, this, places, *slot, *report);
	jump(&region, places, plan_size);
	if (region.vdso_copy >= 0)
		close(region.vdso_copy);
	return lcp_why(why, "the loader cannot be moved: %s", strerror(errno));
}

int lcp_become(const struct become *this, const struct plan *plan, struct why *why)
{
	AUTO_CLOSE int slot = this->slot, control = this->control, report = this->report;
	struct places places;
	int keep[] = { 0, 1, 2, this->directory, slot, report }, result;

	if (this->flags & BECOME_ALONE)
		lcp_close_all_but(keep, report < 0 ? 5 : 6);
	result = lcp_places_open(&places, plan->at, this->directory, why);
	places.is_whole = !!(this->flags & BECOME_WHOLE);
	close(this->directory);
	if (!result)
		result = go(this, &places, plan->size, &slot, &control, &report, why);
	if (this->flags & BECOME_ALONE)
		tell_sender(slot, why);
	lcp_places_undo(&places);
	return result;
}

#else

int lcp_become(const struct become *this, const struct plan *plan, struct why *why)
{
	(void)this;
	return lcp_machine_check(plan->at, why);
}

#endif
