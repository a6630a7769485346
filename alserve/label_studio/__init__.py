"""Label Studio's formats: its labelling configuration, its regions and its tasks' images."""
