# One target per row of the tree: davit_row(name SOURCES ... USES ...) makes a static library that may use
# only the rows and packages that it names.  Include paths start at the repository's root.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.88)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(MHD REQUIRED IMPORTED_TARGET libmicrohttpd>=0.9.75)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
find_path(CGROUP_INCLUDE_DIR libcgroup.h REQUIRED)
find_library(CGROUP_LIBRARY cgroup REQUIRED)
add_library(davit_libcgroup INTERFACE)
target_include_directories(davit_libcgroup INTERFACE ${CGROUP_INCLUDE_DIR})
target_link_libraries(davit_libcgroup INTERFACE ${CGROUP_LIBRARY})

add_library(davit_flags INTERFACE)
target_include_directories(davit_flags INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_definitions(davit_flags INTERFACE _GNU_SOURCE DAVIT_VERSION="${PROJECT_VERSION}")
target_compile_options(davit_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef
  -fno-strict-aliasing)
if(DAVIT_SANITIZE)
  target_compile_options(davit_flags INTERFACE -fsanitize=${DAVIT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(davit_flags INTERFACE -fsanitize=${DAVIT_SANITIZE})
endif()
if(DAVIT_COVERAGE)
  target_compile_options(davit_flags INTERFACE --coverage)
  target_link_options(davit_flags INTERFACE --coverage)
endif()
if(DAVIT_FUZZ)
  target_compile_options(davit_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Without SOURCES a row is every .c of its folder.  The first .c makes the library; an empty folder makes none.
function(davit_row name)
  cmake_parse_arguments(ROW "" "" "SOURCES;USES" ${ARGN})
  if(NOT ROW_SOURCES)
    file(GLOB ROW_SOURCES CONFIGURE_DEPENDS *.c)
    list(FILTER ROW_SOURCES EXCLUDE REGEX "/main[.]c$")
  endif()
  if(ROW_SOURCES)
    add_library(${name} STATIC ${ROW_SOURCES})
    target_link_libraries(${name} PUBLIC davit_flags ${ROW_USES})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE davit_flags ${ROW_USES})
  endif()
endfunction()

function(davit_program name)
  cmake_parse_arguments(PROG "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${PROG_SOURCES})
  target_link_libraries(${name} PRIVATE davit_flags ${PROG_USES})
endfunction()

# davit_tests(label prefix USES ...): every test_*.c of the folder is a cmocka program, run by ctest under `label`.
function(davit_tests label)
  cmake_parse_arguments(T "" "" "USES" ${ARGN})
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
  file(GLOB sources CONFIGURE_DEPENDS test_*.c)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    set(target ${label}_${name})
    add_executable(${target} ${source})
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
    target_link_libraries(${target} PRIVATE davit_flags ${T_USES} PkgConfig::CMOCKA)
    target_compile_definitions(${target} PRIVATE
      DAVIT_SOURCE_DIR="${PROJECT_SOURCE_DIR}" DAVIT_BINARY_DIR="${CMAKE_BINARY_DIR}")
    add_test(NAME ${label}/${name} COMMAND ${target})
    set_tests_properties(${label}/${name} PROPERTIES LABELS ${label} TIMEOUT 300)
  endforeach()
endfunction()

# DAVIT_COMMIT for the program that includes davit_commit.h: looked up at every build, and the header is written only
# when the commit is another one, so that a new commit compiles one file.
function(davit_commit_header name)
  set(header "${CMAKE_BINARY_DIR}/generated/davit_commit.h")
  if(NOT TARGET davit_commit)
    find_package(Git QUIET)
    add_custom_target(davit_commit
      COMMAND ${CMAKE_COMMAND} "-DGIT=${GIT_EXECUTABLE}" "-DSOURCE=${PROJECT_SOURCE_DIR}" "-DHEADER=${header}"
              -P "${PROJECT_SOURCE_DIR}/proto/cmake/commit.cmake"
      BYPRODUCTS "${header}" COMMENT "" VERBATIM)
  endif()
  add_dependencies(${name} davit_commit)
  target_include_directories(${name} PRIVATE "${CMAKE_BINARY_DIR}/generated")
endfunction()
