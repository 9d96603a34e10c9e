"""An interpreter that is warm: as `python`, and as what starts workers."""
