#define _GNU_SOURCE
#include "request.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void put(struct text *out, const char *data, size_t size)
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

static void put_text(struct text *out, const char *text)
{
	put(out, text, strlen(text));
}

static void put_number(struct text *out, long number)
{
	char digits[24];

	put(out, digits, (size_t)snprintf(digits, sizeof(digits), "%ld", number));
}

/* A UTF-16 code unit, with the short escapes that Python's json uses. */
static void put_unit(struct text *out, unsigned int unit)
{
	static const char shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	const char *known = unit && unit < 0x80 ? strchr(shorts, (int)unit) : NULL;
	char escape[8];

	if (known) {
		escape[0] = '\\';
		escape[1] = letters[known - shorts];
		put(out, escape, 2);
	} else if (unit >= ' ' && unit <= '~') {
		escape[0] = (char)unit;
		put(out, escape, 1);
	} else {
		put(out, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", unit));
	}
}

/* Bytes as the code points 0 to 255, so that every byte survives. */
static void put_bytes(struct text *out, const char *data, size_t size)
{
	size_t plain = 0;

	put(out, "\"", 1);
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)data[i];

		if (c >= ' ' && c <= '~' && c != '"' && c != '\\')
			continue;
		put(out, data + plain, i - plain);
		put_unit(out, c);
		plain = i + 1;
	}
	put(out, data + plain, size - plain);
	put(out, "\"", 1);
}

/* The length of the well-formed UTF-8 sequence there (RFC 3629), and what it encodes; 0 for none. */
static size_t decode(const unsigned char *s, uint32_t *code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;

	if (length < 2) {
		*code = s[0];
		return length;
	}
	*code = s[0] & (0x7Fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3F);
	}
	if (*code < least[length] || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF))
		return 0;
	return length;
}

/* A path as os.fsdecode() has it: what is no UTF-8 becomes lone surrogates (PEP 383). */
static void put_path(struct text *out, const char *path)
{
	const unsigned char *s = (const unsigned char *)path;
	uint32_t code;

	put(out, "\"", 1);
	while (*s) {
		size_t length = decode(s, &code);

		if (!length) {
			put_unit(out, 0xDC00u + *s++);
			continue;
		}
		if (code >= 0x10000) {
			put_unit(out, 0xD800u + ((code - 0x10000) >> 10));
			put_unit(out, 0xDC00u + ((code - 0x10000) & 0x3FF));
		} else {
			put_unit(out, code);
		}
		s += length;
	}
	put(out, "\"", 1);
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

/* As os.environ has it: of two variables of one name the first counts. */
static void put_environment(struct text *out, char *const *env)
{
	size_t count = 0, size = 16, put_already = 0;
	const char **seen;

	while (env[count])
		count++;
	while (size < 2 * count)
		size *= 2;
	seen = calloc(size, sizeof(*seen));
	if (!seen) {
		out->failed = 1;
		return;
	}
	put(out, "[", 1);
	for (; *env; env++) {
		const char *equals = strchr(*env, '=');

		if (!equals || !is_new(seen, size, *env, (size_t)(equals - *env)))
			continue;
		put_text(out, put_already++ ? ", [" : "[");
		put_bytes(out, *env, (size_t)(equals - *env));
		put(out, ", ", 2);
		put_bytes(out, equals + 1, strlen(equals + 1));
		put(out, "]", 1);
	}
	put(out, "]", 1);
	free(seen);
}

/* ---- the rest --------------------------------------------------------- */

static void put_limits(struct text *out)
{
	/* Those that Python's resource module knows, in order of their numbers. */
	static const int numbers[] = {
		RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC,
		RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE,
		RLIMIT_RTPRIO, RLIMIT_RTTIME,
	};
	const char *separator = "";

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		struct rlimit limit;

		if (getrlimit((__rlimit_resource_t)numbers[i], &limit))
			continue;
		put_text(out, separator);
		put_text(out, "\"");
		put_number(out, numbers[i]);
		put_text(out, "\": [");
		put_number(out, (long)limit.rlim_cur);
		put_text(out, ", ");
		put_number(out, (long)limit.rlim_max);
		put_text(out, "]");
		separator = ", ";
	}
}

static void put_bits(struct text *out, uint64_t bits, int first)
{
	const char *separator = "";

	for (int i = 0; i < 64; i++) {
		if (!(bits >> i & 1))
			continue;
		put_text(out, separator);
		put_number(out, first + i);
		separator = ", ";
	}
}

static void put_now(struct text *out)
{
	struct timespec now;
	char digits[40];

	clock_gettime(CLOCK_REALTIME, &now);
	put(out, digits, (size_t)snprintf(digits, sizeof(digits), "%ld.%09ld", (long)now.tv_sec, now.tv_nsec));
}

int request_encode(struct text *out, const struct request *request)
{
	put_text(out, "{\"argv\": [");
	for (char *const *argument = request->argv; *argument; argument++) {
		if (argument != request->argv)
			put_text(out, ", ");
		put_bytes(out, *argument, strlen(*argument));
	}
	put_text(out, "], \"env\": ");
	put_environment(out, request->env);
	put_text(out, ", \"cwd\": ");
	put_bytes(out, request->cwd, strlen(request->cwd));
	put_text(out, ", \"umask\": ");
	put_number(out, (long)request->umask);
	put_text(out, ", \"launched\": ");
	put_now(out);
	put_text(out, ", \"snapshot\": ");
	put_path(out, request->snapshot);
	put_text(out, ", \"main\": null, \"closed\": [");
	put_bits(out, request->closed, 0);
	put_text(out, "], \"pass_fds\": [");
	put_bits(out, request->pass, 0);
	put_text(out, "], \"pgid\": ");
	if (request->pgid)
		put_number(out, request->pgid);
	else
		put_text(out, "null");
	put_text(out, ", \"ignored\": [");
	put_bits(out, request->ignored, 1);
	put_text(out, "], \"limits\": {");
	put_limits(out);
	put_text(out, "}, \"protocol\": ");
	put_number(out, REQUEST_PROTOCOL);
	put_text(out, "}");
	return out->failed ? -ENOMEM : 0;
}

int request_file(const struct request *request)
{
	struct text text = { 0 };
	int result = request_encode(&text, request), fd = -1;

	if (!result) {
		fd = memfd_create("libcriu_py-request", MFD_CLOEXEC);
		result = fd < 0 ? -errno : 0;
	}
	for (size_t done = 0; !result && done < text.size;) {
		ssize_t n = write(fd, text.data + done, text.size - done);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			result = -errno;
	}
	free(text.data);
	if (result && fd >= 0)
		close(fd);
	return result ? result : fd;
}
