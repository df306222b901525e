"""The ground floor: errors, files, command lines, specs, devices and processes; knows nothing of pictures."""
