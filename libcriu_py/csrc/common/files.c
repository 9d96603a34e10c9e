#define _GNU_SOURCE
#include "common/files.h"

#include <fcntl.h>
#include <string.h>

#include "common/cleanup.h"

#define FIRST_ROOM 4096

ssize_t lcp_read_text(const char *path, char *text, size_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (n < 0) {
		*text = '\0';
		return -errno;
	}
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\0'))
		n--;
	text[n] = '\0';
	return n;
}

char *lcp_read_whole(int directory, const char *path, size_t limit)
{
	AUTO_CLOSE int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	size_t size = 0, room = FIRST_ROOM;
	char *text = fd < 0 ? NULL : malloc(room), *grown;
	ssize_t n = 1;

	while (text && n && size < limit) {
		if (size + 1 == room) {
			grown = realloc(text, room *= 2);
			if (!grown)
				break;
			text = grown;
		}
		n = read(fd, text + size, (room - 1 < limit ? room - 1 : limit) - size);
		if (n < 0 && errno != EINTR)
			break;
		size += n > 0 ? (size_t)n : 0;
	}
	if (!text || (n && size < limit)) {
		free(text);
		return NULL;
	}
	text[size] = '\0';
	return text;
}

/* The value in the line `name:` of a text, or NULL. */
static const char *field(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, length) && line[length] == ':')
			return line + length + 1;
	}
	return NULL;
}

uint64_t lcp_field_number(const char *text, const char *name, int base)
{
	const char *value = field(text, name);

	return value ? strtoull(value, NULL, base) : 0;
}

int lcp_write_file(const char *path, const char *text)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
}
