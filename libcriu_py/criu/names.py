"""The functions of libcriu that set options."""

from __future__ import annotations

ADDED_IN = {
    "criu_local_set_skip_file_rwx_check": "3.18",
    "criu_local_set_empty_ns": "3.19",
    "criu_local_set_config_file": "4.2",
    "criu_local_add_plugin_option": "4.3",
    "criu_local_set_compress": "4.3",
    "criu_local_set_decompress_threads": "4.3",
    "criu_local_set_display_stats": "4.3",
    "criu_local_set_image_io_mode": "4.3",
    "criu_local_set_lazy_pages": "4.3",
    "criu_local_set_leave_stopped": "4.3",
    "criu_local_set_log_to_stderr": "4.3",
    "criu_local_set_stream": "4.3",
    "criu_local_set_tls": "4.3",
    "criu_local_set_tls_cacert": "4.3",
    "criu_local_set_tls_cacrl": "4.3",
    "criu_local_set_tls_cert": "4.3",
    "criu_local_set_tls_key": "4.3",
    "criu_local_set_tls_no_cn_verify": "4.3",
}
"""The CRIU release that added each function that a supported libcriu may lack."""

_PLAIN = (
    *("pid", "images_dir_fd", "work_dir_fd", "log_level", "cpu_cap", "ghost_limit", "manage_cgroups_mode"),
    *("pre_dump_mode", "network_lock", "pidfd_store_sk", "empty_ns", "leave_running", "ext_unix_sk", "tcp_established"),
    *("tcp_skip_in_flight", "tcp_close", "weak_sysctls", "evasive_devices", "shell_job", "skip_file_rwx_check"),
    *("unprivileged", "orphan_pts_master", "file_locks", "track_mem", "auto_dedup", "force_irmap", "link_remap"),
    *("manage_cgroups", "auto_ext_mnt", "ext_sharing", "ext_masters", "mntns_compat_mode", "lazy_pages"),
    *("leave_stopped", "display_stats", "log_to_stderr", "stream", "compress", "decompress_threads", "image_io_mode"),
    *("tls", "tls_no_cn_verify", "parent_images", "log_file", "root", "freeze_cgroup", "lsm_profile"),
    *("lsm_mount_context", "config_file", "tls_cacert", "tls_cacrl", "tls_cert", "tls_key"),
)

SETTERS = {name: f"criu_local_set_{name}" for name in _PLAIN} | {
    "cgroup_props": "criu_local_add_cg_props",
    "cgroup_props_file": "criu_local_add_cg_props_file",
    "cgroup_yard": "criu_local_add_cg_yard",
    "page_server": "criu_local_set_page_server_address_port",
}

ADDERS = {
    "cgroup_controllers": "criu_local_add_cg_dump_controller",
    "cgroup_roots": "criu_local_add_cg_root",
    "enable_fs": "criu_local_add_enable_fs",
    "ext_mounts": "criu_local_add_ext_mount",
    "external": "criu_local_add_external",
    "inherit_fds": "criu_local_add_inherit_fd",
    "irmap_scan_paths": "criu_local_add_irmap_path",
    "join_ns": "criu_local_join_ns_add",
    "plugin_options": "criu_local_add_plugin_option",
    "skip_mounts": "criu_local_add_skip_mnt",
    "unix_sockets": "criu_local_add_unix_sk",
    "veth_pairs": "criu_local_add_veth_pair",
}
