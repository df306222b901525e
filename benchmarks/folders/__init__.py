"""What can be done with results folders: look at one, make a value again, compare and join several.

progress      the state of a comparison, read from its folder
reproduction  rebuild a stored cell and compare its values
superseded    move results of outdated settings out of the tables
comparison    two results folders against each other
submissions   read and check results folders of other machines and people
merging       several results folders as one
"""
