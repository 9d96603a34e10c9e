#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "copy/python_clocks.h"
#include <time.h>

/* How far the kernel's clock is ahead of ours. */
static int64_t ahead;

static int64_t kernels(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static PyObject *seconds(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	return PyFloat_FromDouble((double)(kernels() - ahead) / 1e9); /* rounded as in Python/pytime.c */
}

static PyObject *nanoseconds(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	return PyLong_FromLongLong(kernels() - ahead);
}

uintptr_t lcp_replace_clock(uintptr_t method, int in_nanoseconds)
{
	PyMethodDef *replaced = (PyMethodDef *)method;
	uintptr_t former = (uintptr_t)replaced->ml_meth;

	replaced->ml_meth = in_nanoseconds ? nanoseconds : seconds;
	return former;
}

void lcp_put_back_clock(uintptr_t method, uintptr_t former)
{
	((PyMethodDef *)method)->ml_meth = (PyCFunction)former;
}

int64_t lcp_monotonic(void)
{
	return kernels() - ahead;
}

void lcp_go_on_from(int64_t reading)
{
	ahead = kernels() - reading;
}
