#define _GNU_SOURCE
#include "native/timers.h"

#if defined(__x86_64__)
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include "native/scratch.h"

#define RESTORE_IDS 77 /* PR_TIMER_CREATE_RESTORE_IDS of Linux 6.15 */
#define MOST_TRIES 100000
#define SIGNAL_OF_LIBC 32 /* glibc's SIGTIMER, for which a thread of it waits that starts those of SIGEV_THREAD */
#define NEAR 96 /* bytes */
#define NOTIFY_THREAD_ID 4

struct kernel_event {
	uint64_t value;
	int signal, notify, thread;
	char rest[44];
};

/* ---- noting ------------------------------------------------------------------- */

/* Move behind the next place of a text; 0 where there is none. */
static int find(const char **at, const char *text)
{
	for (; **at; (*at)++)
		if (lcp_begins(*at, text)) {
			*at += lcp_length(text);
			return 1;
		}
	return 0;
}

/* Read what /proc/self/timers has of the next one; 0 at its end. */
static int parse(const char **at, struct posix_timer *timer)
{
	int is_negative;

	if (!find(at, "ID: "))
		return 0;
	timer->id = (int)lcp_take_decimal(at);
	find(at, "signal: ");
	timer->signal = (int)lcp_take_decimal(at);
	find(at, "/");
	timer->value = lcp_take_hex(at);
	find(at, "notify: ");
	timer->notify = lcp_begins(*at, "none") ? 1 : lcp_begins(*at, "thread") ? 2 : 0;
	find(at, "/");
	timer->notify |= lcp_begins(*at, "tid") ? NOTIFY_THREAD_ID : 0;
	find(at, ".");
	timer->thread = (int)lcp_take_decimal(at);
	find(at, "ClockID: ");
	is_negative = **at == '-';
	*at += is_negative;
	timer->clock = (int)lcp_take_decimal(at);
	timer->clock = is_negative ? -timer->clock : timer->clock;
	return 1;
}

/* What is pending for a thread by now: the timer may have expired since it stood still. */
static uint64_t pending_of(struct scratch *scratch, int thread)
{
	const char *at = scratch->room;
	char path[64];

	lcp_task_path(path, thread, "/status");
	if (lcp_slurp(path, scratch->room, sizeof(scratch->room)) <= 0 || !find(&at, "SigPnd:\t"))
		return 0;
	return lcp_take_hex(&at);
}

/* The thread of glibc that waits for its timers. */
static const struct thread *helper(void)
{
	for (int i = 0; i < lcp_standing->thread_count; i++) {
		const struct thread *thread = &lcp_standing->threads[i];

		if (thread->begins_anew && thread->call == __NR_rt_sigtimedwait &&
		    *(const uint64_t *)thread->arguments[0] >> (SIGNAL_OF_LIBC - 1) & 1)
			return thread;
	}
	return NULL;
}

static int has_code(const struct dl_phdr_info *object, uint64_t address)
{
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];

		if (part->p_type == PT_LOAD && part->p_flags & PF_X &&
		    address - object->dlpi_addr - part->p_vaddr < part->p_memsz)
			return 1;
	}
	return 0;
}

static int note_data(struct dl_phdr_info *object, size_t size, void *this)
{
	struct standing *standing = this;

	(void)size;
	if (!has_code(object, (uint64_t)dlsym(RTLD_DEFAULT, "timer_create")))
		return 0;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_W))
			continue;
		standing->timer_data[0] = (object->dlpi_addr + part->p_vaddr + 3) & ~3ull;
		standing->timer_data[1] = (object->dlpi_addr + part->p_vaddr + part->p_memsz) & ~3ull;
	}
	return 1;
}

void lcp_find_timer_data(void)
{
	dl_iterate_phdr(note_data, lcp_standing);
}

/* Whether glibc's list of its timers begins near by, with one that there is. */
static int has_list(uint64_t place)
{
	const struct standing *this = lcp_standing;

	for (uint64_t at = (place - NEAR) & ~7ull; at < place + NEAR; at += 8)
		for (int i = 0; i < this->timer_count && at >= this->timer_data[0] && at + 8 <= this->timer_data[1]; i++)
			if (this->posix_timers[i].signal == SIGNAL_OF_LIBC &&
			    *(volatile uint64_t *)at == this->posix_timers[i].value)
				return 1;
	return 0;
}

/* How many places of glibc's data may be where the id of its thread is; the last of them. */
static int places_of(int number, int **place)
{
	int count = 0, others = 0;

	for (uint64_t at = lcp_standing->timer_data[0]; at < lcp_standing->timer_data[1]; at += 4) {
		if (*(volatile int *)at != number)
			continue;
		if (has_list(at)) {
			*place = (int *)at;
			count++;
		} else {
			if (!count)
				*place = (int *)at;
			others++;
		}
	}
	return count ? count : others;
}

/* Note where glibc keeps the id of its thread, for timers that are made later. */
static void note_helper(struct scratch *scratch)
{
	const struct thread *thread = helper();
	int *place = NULL, count = thread ? places_of(thread->tid, &place) : 0;

	lcp_standing->timer_thread = count ? place : NULL;
	if (count > 1)
		lcp_fact_numbers(scratch, "timer_thread", (const uint64_t[]){ (uint64_t)thread->tid }, 1);
}

/* In the order of their ids, in which kernels before 6.15 make them. */
static void add(const struct posix_timer *timer)
{
	struct standing *this = lcp_standing;
	int i = this->timer_count++;

	for (; i && this->posix_timers[i - 1].id > timer->id; i--)
		this->posix_timers[i] = this->posix_timers[i - 1];
	this->posix_timers[i] = *timer;
}

void lcp_note_timers(struct scratch *scratch)
{
	const char *at = scratch->maps;
	struct posix_timer timer;

	lcp_standing->timer_count = 0;
	/* Without CONFIG_CHECKPOINT_RESTORE there is no list of timers. */
	if (lcp_slurp("/proc/self/timers", scratch->maps, sizeof(scratch->maps)) < 0)
		return;
	lcp_fact(scratch, "timers", scratch->maps, lcp_length(scratch->maps));
	while (lcp_standing->timer_count < MOST_TIMERS && parse(&at, &timer)) {
		uint64_t pending = 0;
		long result = SYSCALL2(timer_gettime, timer.id, timer.when);

		if (timer.notify & NOTIFY_THREAD_ID)
			pending = pending_of(scratch, timer.thread);
		if (result)
			continue;
		add(&timer);
		lcp_fact_numbers(scratch, "timer", (const uint64_t[]){
				 (uint64_t)timer.id, (uint32_t)timer.clock, (uint64_t)timer.signal, (uint64_t)timer.notify,
				 (uint64_t)timer.thread, timer.value, pending }, 7);
	}
	note_helper(scratch);
}

/* ---- making them again ------------------------------------------------------------ */

static long create(const struct posix_timer *timer, int *id)
{
	const struct thread *thread = timer->notify & NOTIFY_THREAD_ID ? lcp_find_thread(timer->thread) : NULL;
	struct kernel_event event = { timer->value, timer->signal, timer->notify, thread ? thread->new_tid : 0, "" };

	return SYSCALL3(timer_create, timer->clock, &event, id);
}

/* The kernel counts ids up, if it cannot be asked for one. */
static long create_with_id(const struct posix_timer *timer, int is_asked)
{
	for (int tries = 0; tries < MOST_TRIES; tries++) {
		int id = timer->id;
		long result = create(timer, &id);

		if (result || id == timer->id)
			return result;
		SYSCALL1(timer_delete, id);
		if (is_asked || id > timer->id)
			break;
	}
	return -EBUSY;
}

long lcp_restore_timers(void)
{
	const struct standing *this = lcp_standing;
	int is_asked;
	long result = 0;

	if (this->timer_thread)
		*this->timer_thread = lcp_native_new_tid(*this->timer_thread);
	if (!this->timer_count)
		return 0;
	is_asked = !SYSCALL5(prctl, RESTORE_IDS, 1, 0, 0, 0);
	for (int i = 0; i < this->timer_count && !result; i++) {
		const struct posix_timer *timer = &this->posix_timers[i];

		result = create_with_id(timer, is_asked);
		if (!result && (timer->when[2] || timer->when[3]))
			result = SYSCALL4(timer_settime, timer->id, 0, timer->when, NULL);
	}
	if (is_asked)
		SYSCALL5(prctl, RESTORE_IDS, 0, 0, 0, 0);
	return result;
}
#endif
