/* Calls that have a safer form here become compile errors.  Included by auto.h, so by nearly every file. */
#ifndef DV_BANNED_H
#define DV_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol gets gmtime localtime

#endif
