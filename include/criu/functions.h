/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The functions of libcriu that are there twice, as criu_NAME and as criu_local_NAME. This is a
 * table: criu.h makes declarations of it, the library their definitions.
 *
 * Setters, named after the field of criu_opts (images/rpc.proto) that they set:
 * CRIU_BOOL(NAME, FIELD)  void NAME(bool)
 * CRIU_INT(NAME, FIELD)   void NAME(int)
 * CRIU_UINT(NAME, FIELD)  void NAME(unsigned int)
 * CRIU_TEXT(NAME, FIELD)  int NAME(const char *), NULL takes it back; 0 or -ENOMEM
 * CRIU_LIST(NAME, FIELD)  int NAME(const char *), one more; 0 or -ENOMEM
 *
 * All others: CRIU_CALLn(RESULT, NAME, n times TYPE, ARGUMENT)
 */
/* clang-format off */
CRIU_BOOL(set_leave_running, leave_running)
CRIU_BOOL(set_leave_stopped, leave_stopped)
CRIU_BOOL(set_ext_unix_sk, ext_unix_sk)
CRIU_BOOL(set_tcp_established, tcp_established)
CRIU_BOOL(set_tcp_skip_in_flight, tcp_skip_in_flight)
CRIU_BOOL(set_tcp_close, tcp_close)
CRIU_BOOL(set_evasive_devices, evasive_devices)
CRIU_BOOL(set_shell_job, shell_job)
CRIU_BOOL(set_file_locks, file_locks)
CRIU_BOOL(set_track_mem, track_mem)
CRIU_BOOL(set_auto_dedup, auto_dedup)
CRIU_BOOL(set_lazy_pages, lazy_pages)
CRIU_BOOL(set_force_irmap, force_irmap)
CRIU_BOOL(set_link_remap, link_remap)
CRIU_BOOL(set_manage_cgroups, manage_cgroups)
CRIU_BOOL(set_auto_ext_mnt, auto_ext_mnt)
CRIU_BOOL(set_ext_sharing, ext_sharing)
CRIU_BOOL(set_ext_masters, ext_masters)
CRIU_BOOL(set_weak_sysctls, weak_sysctls)
CRIU_BOOL(set_orphan_pts_master, orphan_pts_master)
CRIU_BOOL(set_mntns_compat_mode, mntns_compat_mode)
CRIU_BOOL(set_skip_file_rwx_check, skip_file_rwx_check)
CRIU_BOOL(set_unprivileged, unprivileged)
CRIU_BOOL(set_display_stats, display_stats)
CRIU_BOOL(set_log_to_stderr, log_to_stderr)
CRIU_BOOL(set_tls, tls)
CRIU_BOOL(set_tls_no_cn_verify, tls_no_cn_verify)

CRIU_INT(set_pid, pid)
CRIU_INT(set_work_dir_fd, work_dir_fd)
CRIU_INT(set_log_level, log_level)
CRIU_INT(set_pidfd_store_sk, pidfd_store_sk)
CRIU_UINT(set_cpu_cap, cpu_cap)
CRIU_UINT(set_ghost_limit, ghost_limit)
CRIU_UINT(set_timeout, timeout)
CRIU_UINT(set_empty_ns, empty_ns)

CRIU_TEXT(set_images_dir, images_dir)
CRIU_TEXT(set_parent_images, parent_img)
CRIU_TEXT(set_log_file, log_file)
CRIU_TEXT(set_root, root)
CRIU_TEXT(set_freeze_cgroup, freeze_cgroup)
CRIU_TEXT(set_config_file, config_file)
CRIU_TEXT(set_lsm_profile, lsm_profile)
CRIU_TEXT(set_lsm_mount_context, lsm_mount_context)
CRIU_TEXT(set_tls_cacert, tls_cacert)
CRIU_TEXT(set_tls_cacrl, tls_cacrl)
CRIU_TEXT(set_tls_cert, tls_cert)
CRIU_TEXT(set_tls_key, tls_key)
CRIU_TEXT(add_cg_props, cgroup_props)
CRIU_TEXT(add_cg_props_file, cgroup_props_file)
CRIU_TEXT(add_cg_yard, cgroup_yard)

CRIU_LIST(add_external, external)
CRIU_LIST(add_skip_mnt, skip_mnt)
CRIU_LIST(add_enable_fs, enable_fs)
CRIU_LIST(add_irmap_path, irmap_scan_paths)
CRIU_LIST(add_cg_dump_controller, cgroup_dump_controller)

CRIU_CALL1(void, set_images_dir_fd, int, fd)
CRIU_CALL1(void, set_manage_cgroups_mode, enum criu_cg_mode, mode)
CRIU_CALL1(int, set_network_lock, enum criu_network_lock_method, method)
CRIU_CALL1(int, set_pre_dump_mode, enum criu_pre_dump_mode, mode)
CRIU_CALL2(int, set_page_server_address_port, const char *, address, int, port)
CRIU_CALL2(int, set_exec_cmd, int, argc, char **, argv)
CRIU_CALL2(int, add_ext_mount, const char *, key, const char *, val)
CRIU_CALL2(int, add_veth_pair, const char *, in, const char *, out)
CRIU_CALL2(int, add_cg_root, const char *, ctrl, const char *, path)
CRIU_CALL2(int, add_inherit_fd, int, fd, const char *, key)
CRIU_CALL1(int, add_unix_sk, unsigned int, inode)
CRIU_CALL3(int, join_ns_add, const char *, ns, const char *, ns_file, const char *, extra_opt)
CRIU_CALL1(void, set_notify_cb, criu_notify_cb_t, cb)

/* Which service is asked; the last one counts. NULL stands for the default. */
CRIU_CALL1(int, set_service_address, const char *, path)
CRIU_CALL1(void, set_service_fd, int, fd)
CRIU_CALL1(int, set_service_binary, const char *, path)

CRIU_CALL0(void, free_opts)

/* Requests: what they return is in libcriu(3). */
CRIU_CALL0(int, check)
CRIU_CALL0(int, dump)
CRIU_CALL0(int, pre_dump)
CRIU_CALL1(int, dump_iters, criu_predump_cb_t, more)
CRIU_CALL0(int, restore)
CRIU_CALL0(int, restore_child)
CRIU_CALL2(int, feature_check, struct criu_feature_check *, features, size_t, size)
CRIU_CALL0(int, get_version)
CRIU_CALL1(int, check_version, int, minimum)
/* clang-format on */

#undef CRIU_BOOL
#undef CRIU_INT
#undef CRIU_UINT
#undef CRIU_TEXT
#undef CRIU_LIST
#undef CRIU_CALL0
#undef CRIU_CALL1
#undef CRIU_CALL2
#undef CRIU_CALL3
