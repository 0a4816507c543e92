_global_node = None
