/*M!999999\- enable the sandbox mode */ 
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `empty` (
  `nothing` int(11) DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;
/*!40101 SET character_set_client = @saved_cs_client */;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `odd ``name``` (
  `words` text DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;
/*!40101 SET character_set_client = @saved_cs_client */;
INSERT INTO `odd ``name``` VALUES
('-- Dump completed'),
('two\nlines'),
('(1),(2)'),
(NULL);
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `people` (
  `id` int(11) NOT NULL,
  `name` varchar(100) DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;
/*!40101 SET character_set_client = @saved_cs_client */;
INSERT INTO `people` VALUES
(1,'person 1'),
(2,'person 2'),
(3,'person 3'),
(4,'person 4'),
(5,'person 5'),
(6,'person 6'),
(7,'person 7'),
(8,'person 8'),
(9,'person 9'),
(10,'person 10'),
(11,'person 11'),
(12,'person 12'),
(13,'person 13'),
(14,'person 14'),
(15,'person 15'),
(16,'person 16'),
(17,'person 17'),
(18,'person 18'),
(19,'person 19'),
(20,'person 20'),
(21,'person 21'),
(22,'person 22'),
(23,'person 23'),
(24,'person 24'),
(25,'person 25');
