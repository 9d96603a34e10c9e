/*
 * What the extension uses of libc that the oldest glibc of a portable build lacks: compiled into that build alone, whose
 * linker would otherwise find no such function, or ask for a newer glibc (build_ffi.py).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int stat(const char *path, struct stat *status)
{
	return (int)syscall(SYS_newfstatat, AT_FDCWD, path, status, 0);
}

int fstat(int fd, struct stat *status)
{
	return (int)syscall(SYS_newfstatat, fd, "", status, AT_EMPTY_PATH);
}

ssize_t getrandom(void *bytes, size_t size, unsigned int flags)
{
	return syscall(SYS_getrandom, bytes, size, flags);
}

pid_t gettid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* From glibc 2.38 on, its headers call these instead of the ones without the prefix, which do not know "0b1". */
#define OLD(type, name)                                                  \
	type lcp_old_##name(const char *, char **, int) __asm__(#name);  \
	type __isoc23_##name(const char *text, char **end, int base);    \
	type __isoc23_##name(const char *text, char **end, int base)     \
	{                                                                \
		return lcp_old_##name(text, end, base);                  \
	}

OLD(long, strtol)
OLD(long long, strtoll)
OLD(unsigned long, strtoul)
OLD(unsigned long long, strtoull)

int lcp_old_vsscanf(const char *, const char *, va_list) __asm__("__isoc99_vsscanf");
int __isoc23_sscanf(const char *text, const char *format, ...);
int __isoc23_sscanf(const char *text, const char *format, ...)
{
	va_list values;
	int count;

	va_start(values, format);
	count = lcp_old_vsscanf(text, format, values);
	va_end(values);
	return count;
}
