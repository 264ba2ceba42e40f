"""Part 2, the microscopic view: why did the network decide as it did for this input?"""
