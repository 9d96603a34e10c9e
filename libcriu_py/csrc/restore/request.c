#define _GNU_SOURCE
#include "restore/request.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

void lcp_request_put(struct text *out, const char *data, size_t size)
{
	if (out->failed)
		return;
	if (out->room - out->size < size) {
		size_t room = (out->size + size) * 2 + 4096;
		char *grown = realloc(out->data, room);

		if (!grown) {
			out->failed = 1;
			return;
		}
		out->data = grown;
		out->room = room;
	}
	memcpy(out->data + out->size, data, size);
	out->size += size;
}

/* A field: its text, and the NUL behind it. */
static void put_field(struct text *out, const char *text)
{
	lcp_request_put(out, text, strlen(text) + 1);
}

static void end_field(struct text *out)
{
	lcp_request_put(out, "", 1);
}

static void put_number(struct text *out, long number)
{
	char digits[24], *at = digits + sizeof(digits);
	unsigned long rest = number < 0 ? 0 - (unsigned long)number : (unsigned long)number;

	/* snprintf takes 500 instructions for one, and there are fifty. */
	*--at = ' ';
	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (number < 0)
		*--at = '-';
	lcp_request_put(out, at, (size_t)(digits + sizeof(digits) - at));
}

/* ---- the environment -------------------------------------------------- */

static uint64_t hash(const char *name, size_t size)
{
	uint64_t value = 14695981039346656037u; /* FNV-1a */

	for (size_t i = 0; i < size; i++)
		value = (value ^ (unsigned char)name[i]) * 1099511628211u;
	return value;
}

/* Whether this name is new in the table, whose size is a power of two; it is then added. */
static int is_new(const char **table, size_t size, const char *entry, size_t length)
{
	size_t at = hash(entry, length) & (size - 1);

	for (; table[at]; at = (at + 1) & (size - 1))
		if (!strncmp(table[at], entry, length + 1)) /* with its '=' */
			return 0;
	table[at] = entry;
	return 1;
}

/* Whether a variable names a process, as LISTEN_PID does, and that is this one. */
static int names_us(const char *name, const char *equals)
{
	char us[16];

	if (equals - name < 3 || memcmp(equals - 3, "PID", 3))
		return 0;
	snprintf(us, sizeof(us), "%d", getpid());
	return !strcmp(equals + 1, us);
}

/* As os.environ has it: of two variables of one name the first counts. */
static void put_environment(struct text *out, char *const *env, pid_t pid)
{
	AUTO_FREE const char **seen = NULL;
	size_t count = 0, size = 16;
	char program[16];

	while (env[count])
		count++;
	while (size < 2 * count)
		size *= 2;
	seen = calloc(size, sizeof(*seen));
	if (!seen) {
		out->failed = 1;
		return;
	}
	for (; *env; env++) {
		const char *equals = strchr(*env, '=');

		if (!equals || !is_new(seen, size, *env, (size_t)(equals - *env)))
			continue;
		if (pid && names_us(*env, equals)) {
			snprintf(program, sizeof(program), "%d", pid);
			lcp_request_put(out, *env, (size_t)(equals + 1 - *env));
			put_field(out, program);
		} else {
			put_field(out, *env);
		}
	}
}

/* ---- the rest --------------------------------------------------------- */

static void put_limits(struct text *out, int in_place)
{
	/* Those that Python's resource module knows, in order of their numbers. */
	static const int numbers[] = {
		RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC,
		RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE,
		RLIMIT_RTPRIO, RLIMIT_RTTIME,
	};

	for (size_t i = 0; !in_place && i < sizeof(numbers) / sizeof(*numbers); i++) {
		struct rlimit limit;

		if (getrlimit((__rlimit_resource_t)numbers[i], &limit))
			continue;
		put_number(out, numbers[i]);
		put_number(out, (long)limit.rlim_cur);
		put_number(out, (long)limit.rlim_max);
	}
	end_field(out);
}

static void put_bits(struct text *out, uint64_t bits, int first)
{
	for (int i = 0; i < 64; i++)
		if (bits >> i & 1)
			put_number(out, first + i);
	end_field(out);
}

static int is_scheduled(const struct request *request)
{
	return request->schedule[0] || request->schedule[1] || request->schedule[2];
}

static void put_now(struct text *out)
{
	struct timespec now;
	char digits[40];

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(digits, sizeof(digits), "%ld.%09ld", (long)now.tv_sec, now.tv_nsec);
	put_field(out, digits);
}

int lcp_request_encode(struct text *out, const struct request *request)
{
	long count = 0;

	put_number(out, REQUEST_PROTOCOL);
	end_field(out);
	put_number(out, (long)request->umask);
	end_field(out);
	put_now(out);
	put_number(out, request->pgid);
	end_field(out);
	put_bits(out, request->closed, 0);
	put_bits(out, request->pass, 0);
	put_bits(out, request->ignored, 1);
	put_limits(out, request->in_place);
	for (int i = 0; request->inherited && i < request->inherited->count; i++)
		put_number(out, request->inherited->fds[i]);
	end_field(out);
	for (int i = 0; is_scheduled(request) && i < 3; i++)
		put_number(out, request->schedule[i]);
	end_field(out);
	put_bits(out, request->blocked, 1);
	put_field(out, request->main ? "script" : ""); /* the main program is the snapshot's own */
	put_field(out, request->main ? request->main : request->executable ? request->executable : "");
	put_field(out, request->cwd);
	put_field(out, request->snapshot);
	while (request->argv[count])
		count++;
	put_number(out, count);
	end_field(out);
	for (char *const *argument = request->argv; *argument; argument++)
		put_field(out, *argument);
	put_environment(out, request->env, request->pid);
	return out->failed ? -ENOMEM : 0;
}

int lcp_request_memory(const char *data, size_t size)
{
	AUTO_CLOSE int fd = memfd_create("libcriu_py-request", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < size;) {
		ssize_t n = write(fd, data + done, size - done);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return -errno;
	}
	return lcp_keep_fd(&fd);
}

int lcp_request_file(const struct request *request)
{
	AUTO_TEXT struct text text = { 0 };
	int result = lcp_request_encode(&text, request);

	return result ? result : lcp_request_memory(text.data, text.size);
}
