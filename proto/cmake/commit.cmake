# cmake -DGIT= -DSOURCE= -DHEADER= -P commit.cmake: the commit that SOURCE is a checkout of, as a header; "unknown" where it
# is none (an unpacked archive, no git).
set(commit "")
if(GIT AND EXISTS "${SOURCE}/.git")
  # safe.directory: a checkout of another user's, as in a container, is only read.
  execute_process(COMMAND "${GIT}" -c "safe.directory=*" -C "${SOURCE}" rev-parse --short HEAD
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT commit MATCHES "^[0-9a-f]+$")
  set(commit "unknown")
endif()
set(text "#define DAVIT_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS "${HEADER}")
  file(READ "${HEADER}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${HEADER}" "${text}")
endif()
