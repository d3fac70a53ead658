/* clock.h - seconds of a clock that only goes forward. */
#ifndef ENGINE_BASE_CLOCK_H
#define ENGINE_BASE_CLOCK_H

double clock_seconds(void);

#endif
