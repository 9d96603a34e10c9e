#include "become/why.h"

#include <stdarg.h>
#include <stdio.h>

int lcp_why(struct why *why, const char *format, ...)
{
	va_list arguments;

	why->is_changed = 0;
	va_start(arguments, format);
	vsnprintf(why->text, sizeof(why->text), format, arguments);
	va_end(arguments);
	return -1;
}
