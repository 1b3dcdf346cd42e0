# The three ways in which a folder adds something to the build.

# lorikeet_cc_library(NAME n HDRS ... SRCS ... DEPS ...): one static library per
# folder, known to others as lorikeet::n.
function(lorikeet_cc_library)
  cmake_parse_arguments(ARG "" "NAME" "HDRS;SRCS;DEPS;OPTIONS" ${ARGN})
  set(target lorikeet_${ARG_NAME})
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_HDRS} ${ARG_SRCS})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE lorikeet_options)
    target_compile_options(${target} PRIVATE ${ARG_OPTIONS})
  else()
    add_library(${target} INTERFACE ${ARG_HDRS})
    set(scope INTERFACE)
  endif()
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} ${scope} ${ARG_DEPS})
  add_library(lorikeet::${ARG_NAME} ALIAS ${target})
endfunction()

# lorikeet_cc_test(NAME n SRCS ... DEPS ... LABELS unit): one ctest entry with
# GoogleTest's main. LORIKEET_SHARED and LORIKEET_SOURCE_DIR are in its
# environment.
function(lorikeet_cc_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT LORIKEET_BUILD_TESTS)
    return()
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE lorikeet_options ${ARG_DEPS}
                        GTest::gmock GTest::gtest GTest::gtest_main)
  target_include_directories(${ARG_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  set_tests_properties(${ARG_NAME} PROPERTIES
    LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
    SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\] [0-9]+ test.*\n.*\\[  PASSED  \\] 0 tests"
    ENVIRONMENT "LORIKEET_SOURCE_DIR=${PROJECT_SOURCE_DIR};LORIKEET_BINARY_DIR=${PROJECT_BINARY_DIR}")
  set_property(GLOBAL APPEND PROPERTY LORIKEET_TESTS ${ARG_NAME})
endfunction()

# lorikeet_fuzz_test(NAME n SRCS ... DEPS ...): a libFuzzer target; without the
# fuzz preset nothing.
function(lorikeet_fuzz_test)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT LORIKEET_FUZZ)
    return()
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE lorikeet_options ${ARG_DEPS})
  target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
  target_include_directories(${ARG_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
endfunction()
