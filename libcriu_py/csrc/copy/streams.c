/*
 * Python's standard streams: what libcriu_py/dump/stdio.py does (_renew), for one whose objects are as they usually are.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "copy/streams.h"

#include <string.h>

/* The fields of `Renewal`. */
enum field { FILE_OF, FILE_ARGUMENTS, NAME, BUFFER, BUFFER_INIT, TEXT_INIT, PLAIN, TERMINAL };

static int is_done(PyObject *result)
{
	Py_XDECREF(result);
	return result != NULL;
}

/* Initialise the buffer, if there is one, with a new file. */
static int renew_buffer(PyObject *plan, PyObject *raw)
{
	PyObject *size;
	int result;

	if (PyTuple_GetItem(plan, BUFFER) == Py_None)
		return 1;
	size = PyObject_GetAttrString(raw, "_blksize");
	result = size && is_done(PyObject_CallFunctionObjArgs(PyTuple_GetItem(plan, BUFFER_INIT), raw, size, NULL));
	Py_XDECREF(size);
	return result;
}

static int renew_text(PyObject *plan, PyObject *raw, int is_terminal)
{
	PyObject *buffer = PyTuple_GetItem(plan, BUFFER);
	PyObject *first = PyTuple_Pack(1, buffer == Py_None ? raw : buffer);
	PyObject *all = first ? PySequence_Concat(first, PyTuple_GetItem(plan, is_terminal ? TERMINAL : PLAIN)) : NULL;
	int result = all && is_done(PyObject_Call(PyTuple_GetItem(plan, TEXT_INIT), all, NULL));

	Py_XDECREF(first);
	Py_XDECREF(all);
	return result;
}

static int renew(PyObject *plan, int is_terminal)
{
	PyObject *raw = PyObject_Call(PyTuple_GetItem(plan, FILE_OF), PyTuple_GetItem(plan, FILE_ARGUMENTS), NULL);
	int result = raw && !PyObject_SetAttrString(raw, "name", PyTuple_GetItem(plan, NAME)) && renew_buffer(plan, raw) &&
		     renew_text(plan, raw, is_terminal);

	Py_XDECREF(raw);
	return result ? 0 : -1;
}

int lcp_set_up_streams(void *plans, const struct lcp_arrival *arrival)
{
	if (!lcp_may_keep_streams(arrival))
		return -1;
	for (int fd = 0; fd < 3; fd++) {
		struct lcp_stream found;

		lcp_look_at_stream(fd, &found);
		if (!memcmp(&found, &arrival->streams[fd], sizeof(found)))
			continue;
		if (found.is_directory || found.block < 2 || renew(PyTuple_GetItem(plans, fd), found.is_terminal))
			return -1;
	}
	return 0;
}
