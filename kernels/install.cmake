# The library and its headers as a CMake package: component `kernels`, which belongs to an
# installation of the kernels alone and not to one of the engine, whose library contains them.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/tweedie_kernels)
set(component COMPONENT kernels)
if(NOT PROJECT_IS_TOP_LEVEL)
    list(APPEND component EXCLUDE_FROM_ALL)
endif()
# The C++ library: guards of static variables in the launching code.
target_link_libraries(tweedie_kernels INTERFACE $<INSTALL_INTERFACE:CUDA::cudart_static>
                      $<INSTALL_INTERFACE:stdc++> $<INSTALL_INTERFACE:m>)
install(TARGETS tweedie_kernels EXPORT tweedie_kernels-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} ${component}
    FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tweedie_kernels ${component})
install(EXPORT tweedie_kernels-targets NAMESPACE tweedie_kernels:: DESTINATION ${package}
    ${component})
configure_package_config_file(tweedie_kernels-config.cmake.in tweedie_kernels-config.cmake
    INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/tweedie_kernels-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tweedie_kernels-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/tweedie_kernels-config-version.cmake
    DESTINATION ${package} ${component})
