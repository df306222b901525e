"""The program that draws the embedded data set `scenes`.

composition   choose place, light, camera and objects: `Scene`, `compose`
places        tables of lights, places, and the surfaces where each class may stand
painting      paint a composed scene as pixels, with a map of which object owns each pixel
backdrop      paint sky, horizon and ground
shapes        polygons, colours and simple shapes that drawings are made of
creatures     drawings of bird, cow, person and sheep
fixtures      drawings of house, lamp and tree
vehicles      drawings of boat, bus and car
"""
