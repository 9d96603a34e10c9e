#include "restore/problem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int lcp_problem_set(struct problem *problem, int code, const char *format, ...)
{
	va_list arguments;

	if (!problem)
		return -1;
	problem->code = code;
	problem->failure = problem->value = problem->error = problem->stage = 0;
	problem->log = -1;
	problem->is_stale = 0;
	va_start(arguments, format);
	vsnprintf(problem->text, sizeof(problem->text), format, arguments);
	va_end(arguments);
	return -1;
}

void lcp_problem_add(struct problem *problem, const char *format, ...)
{
	size_t used = problem ? strlen(problem->text) : 0;
	va_list arguments;

	if (!problem)
		return;
	va_start(arguments, format);
	vsnprintf(problem->text + used, sizeof(problem->text) - used, format, arguments);
	va_end(arguments);
}
